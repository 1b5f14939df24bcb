"""Seeded inputs for the kernels of the sequences: run as a script, it prints a digest of each.

The same module run by an interpreter with ``NUMBA_DISABLE_JIT=1`` tells what plain Python gives.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np

from bandit_router.bench.calibration_experiments import AA_TESTS
from bandit_router.ope.constant import HedgedCapital, PlugInBernstein
from bandit_router.ope.harm import HarmConfig, HarmMonitor
from bandit_router.ope.sequences import ContrastSequence, SequenceConfig

K = 4


def rows(seed: int, n: int, epsilon: float = 0.05) -> dict[str, np.ndarray]:
    """A log whose pmf changes: everything that ``update`` takes, and the potential rewards."""
    rng = np.random.default_rng(seed)
    pmf = np.full((n, K), epsilon / K)
    pmf[np.arange(n), rng.integers(0, K, n)] += 1.0 - epsilon
    potential = np.clip(rng.normal([0.3, 0.5, 0.6, 0.8], 0.25, (n, K)), 0.0, 1.0)
    actions = (pmf.cumsum(axis=1) < rng.random(n)[:, None]).sum(axis=1).clip(0, K - 1)
    return {
        "rewards": potential[np.arange(n), actions],
        "actions": actions,
        "pmf": pmf,
        "predicted": np.clip(potential + rng.normal(0.0, 0.2, (n, K)), 0.0, 1.0),
        "potential": potential,
    }


def taken(log: dict[str, np.ndarray], *names: str) -> dict[str, np.ndarray]:
    """What ``update`` takes of a log: without the potential rewards, and without ``names``."""
    return {key: log[key] for key in log if key not in {"potential", *names}}


def digests() -> dict[str, str]:
    """A digest of the state and the bounds of every kind of sequence."""
    log = rows(1, 400)
    made: dict[str, list[bytes]] = {}
    target = np.eye(K)[3]
    contrast = ContrastSequence(K, SequenceConfig(scale=2.0))
    contrast.update(**taken(log), contrast=target - log["pmf"], least=np.full(K, 0.0))
    made["contrast"] = [contrast.dump(), repr(contrast.bounds()).encode()]
    harm = HarmMonitor(K, HarmConfig(harm_is="below", limit=0.1, restart_every=150))
    harm.update(**taken(log), contrast=np.broadcast_to(target, (400, K)))
    made["harm"] = [harm.dump(), repr(harm.log_evidence).encode()]
    for kind in (PlugInBernstein, HedgedCapital):
        sequence = kind(0.1)
        sequence.update(log["rewards"])
        made[kind.__name__] = [sequence.dump(), repr(sequence.bounds()).encode()]
    made["experiment"] = [repr(_experiment()).encode()]
    return {name: hashlib.sha256(b"".join(parts)).hexdigest() for name, parts in made.items()}


def _experiment() -> list[tuple[int, int]]:
    from bandit_router.bench import calibration_experiments

    calibration_experiments.UNITS = 300
    return calibration_experiments.run_test(AA_TESTS[0], 2, 5)


if __name__ == "__main__":
    print(json.dumps(digests()))  # noqa: T201
