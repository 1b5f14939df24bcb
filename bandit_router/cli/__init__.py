"""The command line: one module per command, see :mod:`bandit_router.cli.app`."""
