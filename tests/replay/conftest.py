"""Small logs for the replay tests, and the command line in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from bandit_router.adapters.tables import OutcomeTable
from bandit_router.cli.app import app, run

MODELS = ("small", "middle", "large")
COSTS = (0.0001, 0.001, 0.01)


@pytest.fixture
def make_table() -> Callable[..., OutcomeTable]:
    """Tables of n queries: the dearer model is right more often, on odd queries only."""

    def make(n: int = 120, seed: int = 0, models: Sequence[str] = MODELS) -> OutcomeTable:
        rng = np.random.default_rng(seed)
        odd = np.arange(n) % 2 == 1
        right = np.where(odd[:, None], [0.1, 0.5, 0.95], [0.8, 0.85, 0.9])
        embeddings = rng.normal(size=(n, 384))
        embeddings[:, 0] += np.where(odd, 4.0, -4.0)
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        return OutcomeTable(
            path=f"made-{seed}.jsonl",
            sha256="0" * 64,
            models=tuple(models),
            query_ids=tuple(f"{seed}-{i}" for i in range(n)),
            prompts=tuple(f"prompt {seed}-{i}" for i in range(n)),
            scores=(rng.random((n, 3)) < right).astype(float),
            costs_usd=np.array(COSTS) * np.exp(0.3 * rng.normal(size=(n, 3))),
            columns={"task": tuple("odd" if o else "even" for o in odd)},
            embeddings=embeddings.astype(np.float32),
        )

    return make


@pytest.fixture
def write_log(tmp_path: Path) -> Callable[..., Path]:
    """Writes a table as JSON Lines with its embeddings beside it."""

    def write(table: OutcomeTable, name: str = "log") -> Path:
        path = tmp_path / f"{name}.jsonl"
        with path.open("w", encoding="utf-8") as stream:
            for q in range(len(table)):
                for k, model in enumerate(table.models):
                    row = {
                        "query_id": table.query_ids[q],
                        "prompt": table.prompts[q],
                        "model": model,
                        "score": float(table.scores[q, k]),
                        "cost_usd": float(table.costs_usd[q, k]),
                        "fold": q % 5,
                        **{name: texts[q] for name, texts in table.columns.items()},
                    }
                    stream.write(json.dumps(row) + "\n")
        np.save(tmp_path / f"{name}.emb.npy", table.embeddings)
        ids = tmp_path / f"{name}.emb_ids.json"
        ids.write_text(json.dumps(list(table.query_ids)), encoding="utf-8")
        return path

    return write


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs ``bandit-router`` in this process: (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(a) for a in arguments], lambda args: app(args, prog_name="bandit-router"))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
