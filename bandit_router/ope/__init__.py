"""Off-policy evaluation and anytime-valid inference on logged decisions. Pure mathematics."""
