"""Faults on purpose, and what they cost: acknowledged events lost, or applied more than once."""
