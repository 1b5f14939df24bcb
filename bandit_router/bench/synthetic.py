"""Seeded logs for measuring speed: made of nothing real, shaped like a routing log."""

from __future__ import annotations

import hashlib

import numpy as np

from bandit_router.adapters.tables import OutcomeTable

EMBEDDING_SIZE = 384
TASKS = 8
_WORDS_PER_TASK, _COMMON_WORDS = 200, 600
_SYLLABLES = ("ka", "lo", "mi", "ne", "ru", "sta", "ter", "vo", "pri", "qua", "zen", "dor")


def synthetic_log(models: int, queries: int, seed: int = 0) -> OutcomeTable:
    """A full-information log with prompts, embeddings and a context column ``task``.

    Every task has words and a place in embedding space of its own, and its own difficulty; a
    model's ability rises with the logarithm of its price (from 1e-5 to 1e-2 USD per query).
    """
    rng = np.random.default_rng([seed, models])
    task = rng.integers(TASKS, size=queries)
    centres = rng.standard_normal((TASKS, EMBEDDING_SIZE))
    embeddings = centres[task] + rng.standard_normal((queries, EMBEDDING_SIZE))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    price = np.geomspace(1e-5, 1e-2, models)
    ability = np.linspace(-0.5, 2.0, models) + 0.3 * rng.standard_normal((TASKS, models))
    difficulty = rng.standard_normal(TASKS)
    log_odds = ability[task] - difficulty[task][:, None]
    scores = (rng.random((queries, models)) < 1.0 / (1.0 + np.exp(-log_odds))).astype(np.float64)
    costs = price * np.exp(0.4 * rng.standard_normal((queries, 1)))
    name = f"synthetic-{models}x{queries}-{seed}"
    return OutcomeTable(
        path=name,
        sha256=hashlib.sha256(name.encode()).hexdigest(),
        models=tuple(f"model-{k:02d}" for k in range(models)),
        query_ids=tuple(f"q{row}" for row in range(queries)),
        prompts=_prompts(rng, task),
        scores=scores,
        costs_usd=costs,
        columns={"task": tuple(f"task-{t}" for t in task)},
        embeddings=embeddings.astype(np.float32),
    )


def _prompts(rng: np.random.Generator, task: np.ndarray) -> tuple[str, ...]:
    """20 to 79 words each, half of them the task's own."""
    count = _COMMON_WORDS + TASKS * _WORDS_PER_TASK
    parts = rng.integers(len(_SYLLABLES), size=(count, 3))
    words = ["".join(_SYLLABLES[part] for part in row) for row in parts.tolist()]
    prompts = []
    for t in task.tolist():
        n = int(rng.integers(20, 80))
        common = rng.integers(_COMMON_WORDS, size=n)
        own = _COMMON_WORDS + t * _WORDS_PER_TASK + rng.integers(_WORDS_PER_TASK, size=n)
        picked = np.where(rng.random(n) < 0.5, own, common)
        prompts.append(" ".join(words[i] for i in picked.tolist()) + "?")
    return tuple(prompts)
