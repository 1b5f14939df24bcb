"""Reports: the numbers as ``report.json`` (contract C4), the pictures as ``report.html``."""
