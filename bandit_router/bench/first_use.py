"""Import the policy, decide and learn once, and print how long it took, as JSON.

Run as ``python -m bandit_router.bench.first_use`` in a process of its own, by
:mod:`bandit_router.bench.startup`.
"""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    """Write ``{"import_s": ..., "first_s": ..., "second_s": ...}`` on stdout."""
    start = time.perf_counter()
    from bandit_router.bench.synthetic import synthetic_log
    from bandit_router.bootstrap import make_featurizer, make_policy
    from bandit_router.replay import Player, blurred_catalog, table_features

    table = synthetic_log(3, 2)
    featurizer = make_featurizer(embed=False)
    features = table_features(table, featurizer)
    catalog = blurred_catalog(table, 0)
    policy = make_policy("bandit", catalog, dimension=featurizer.dimension)
    player = Player(policy, catalog, quality_value_usd=0.02)
    taken = {"import_s": time.perf_counter() - start}
    for name, row in (("first_s", 0), ("second_s", 1)):
        start = time.perf_counter()
        player.play(table, features, [row])
        taken[name] = time.perf_counter() - start
    sys.stdout.write(json.dumps(taken))


if __name__ == "__main__":
    main()
