"""``python -m bandit_router.bench.streaming_restart CONFIG``: open every app's store, and end.

What a restarted learner does before it can claim its partitions: start, read its settings, load the
newest snapshot and learn again what came after it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bandit_router.config import load_settings
from bandit_router.streaming.applearner import AppLearner
from bandit_router.streaming.learning import plans_of


def main() -> None:
    """Print ``learn_seq`` of each app."""
    for plan in plans_of(load_settings(Path(sys.argv[1]))):
        app = AppLearner.open(plan)
        sys.stdout.write(f"{app.learn_seq}\n")
        app.close()


if __name__ == "__main__":
    main()
