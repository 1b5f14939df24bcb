"""From a context to the numbers and tokens a policy sees. Pure functions: no I/O, no clock."""
