"""What is learned of the models: the score and the cost of each, given a query's features."""

from bandit_router.quality.base import Belief, OutcomeModel, ResidualExpert

__all__ = ["Belief", "OutcomeModel", "ResidualExpert"]
