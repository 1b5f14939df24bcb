"""Joins decisions with their outcomes into interactions, by event time."""

from bandit_router.joiner.joiner import Discarded, Joiner
from bandit_router.joiner.rules import DEFAULT_METRICS, JoinRules

__all__ = ["DEFAULT_METRICS", "Discarded", "JoinRules", "Joiner"]
