"""What `bandit-router bench` measures: speed, and quality beside the baselines."""
