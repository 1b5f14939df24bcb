"""Online, adaptive LLM routing: a contextual bandit with exact propensities."""

__version__ = "0.1.0"
