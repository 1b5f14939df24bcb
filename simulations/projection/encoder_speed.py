"""Measures ways of embedding many prompts, on the prompts of package ``paretobandit``.

    python -m simulations.projection.encoder_speed --prompts 400

Prints prompts per second and CPU time per prompt for: one after another with all threads; batches
of 4 and of 32 texts of about the same length; and one text per run from as many single-threaded
workers as cores (what ``FastEmbedder`` does). Run it on an idle machine: beside other work the
threads of one text wait for each other, and the first three ways lose most.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bandit_router.adapters.embedding import DEFAULT_MODEL, FastEmbedder, open_encoder

if TYPE_CHECKING:
    from fastembed import TextEmbedding


def prompts(count: int) -> list[str]:
    """A seeded sample of both splits."""
    spec = importlib.util.find_spec("pareto_bandit")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("package paretobandit is not installed: pip install paretobandit")
    folder = Path(spec.submodule_search_locations[0]) / "data" / "examples"
    texts: list[str] = []
    for split in ("val", "test_holdout"):
        with (folder / f"{split}.jsonl").open(encoding="utf-8") as lines:
            texts.extend(json.loads(line)["prompt"] for line in lines)
    chosen = np.random.default_rng(0).permutation(len(texts))[:count]
    return [texts[index] for index in chosen]


def batches(session: TextEmbedding, texts: list[str], size: int) -> None:
    """Padded batches of ``size`` texts of about the same length through fastembed's own call."""
    ordered = sorted(texts, key=len)
    for start in range(0, len(ordered), size):
        list(session.embed(ordered[start : start + size], batch_size=size))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=400)
    texts = prompts(parser.parse_args().prompts)
    embedder, session = FastEmbedder(), open_encoder(DEFAULT_MODEL, None)
    ways: dict[str, Callable[[], object]] = {
        "one after another": lambda: [embedder.embed_one(text) for text in texts],
        "sorted batches of 4": lambda: batches(session, texts, 4),
        "sorted batches of 32": lambda: batches(session, texts, 32),
        "one per worker": lambda: embedder.embed_many(texts),
    }
    embedder.embed_many(texts[:16])
    for name, way in ways.items():
        start, cpu = time.perf_counter(), time.process_time()
        way()
        speed = len(texts) / (time.perf_counter() - start)
        cost = (time.process_time() - cpu) / len(texts)
        print(f"{name:22} {speed:7.1f} prompts/s {cost * 1e3:7.1f} ms of CPU per prompt")


if __name__ == "__main__":
    main()
