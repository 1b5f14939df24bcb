"""Policies: from a context's features to a pmf over the eligible actions, and back from outcomes.

:class:`Policy` is the one seam between the loop and everything that learns. Ours, the baselines,
native Vowpal Wabbit and peers under measurement all stand behind it.
"""

from bandit_router.policy.base import Policy

__all__ = ["Policy"]
