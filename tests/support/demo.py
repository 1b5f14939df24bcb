"""What the demo's tests share: embeddings that cost nothing, a small log, a quiet watcher."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bandit_router.adapters.embedding import DEFAULT_EMBEDDER_ID
from bandit_router.adapters.tables import OutcomeTable
from bandit_router.demo.prompts import embed_prompts
from bandit_router.demo.workspace import EMBEDDINGS

MODELS = ("small", "middle", "large")


class HashEmbedder:
    """Unit vectors that depend on the text's digest alone. It claims to be the default encoder."""

    embedder_id = DEFAULT_EMBEDDER_ID

    def __init__(self) -> None:
        self.embedded = 0

    def embed_one(self, text: str) -> np.ndarray:
        seed = int.from_bytes(
            hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "little"
        )
        vector = np.random.default_rng(seed).standard_normal(384)
        return (vector / np.linalg.norm(vector)).astype(np.float32)

    def embed_many(self, texts: Sequence[str]) -> np.ndarray:
        self.embedded += len(texts)
        return np.stack([self.embed_one(text) for text in texts])


class Quiet:
    """Watches a demo without a screen, and remembers its alarms."""

    def __init__(self) -> None:
        self.alarms: list[str] = []
        self.ticks = 0

    @contextmanager
    def embedding(self, prompts: int) -> Iterator:
        yield lambda done: None

    @contextmanager
    def routing(self, world, done: int) -> Iterator:
        def tick(record) -> None:
            self.ticks += 1

        yield tick

    def change(self, change) -> None:
        self.alarms.append(change.data["model"])


def small_log(n: int, seed: int = 0) -> OutcomeTable:
    """The middle of three models is the best bargain: (.62, $.0001), (.9, $.001), (.95, $.05)."""
    rng = np.random.default_rng(seed)
    means = np.array([0.62, 0.9, 0.95])
    return OutcomeTable(
        path="small",
        sha256="0" * 64,
        models=MODELS,
        query_ids=tuple(f"q{i}" for i in range(n)),
        prompts=tuple(f"question {seed} {i}" for i in range(n)),
        scores=np.clip(means + 0.1 * rng.standard_normal((n, 3)), 0.0, 1.0),
        costs_usd=np.array([0.0001, 0.001, 0.05]) * np.exp(0.2 * rng.standard_normal((n, 3))),
    )


def embed_ahead(folder: Path, prompts: Sequence[str]) -> None:
    """Put embeddings where the demo keeps its own, so that it need not load the encoder."""
    embed_prompts(prompts, HashEmbedder(), folder / EMBEDDINGS)
