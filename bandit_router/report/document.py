"""``report.json`` as typed values: what it has is written down once, here (contract C4)."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Literal

import msgspec

from bandit_router.errors import StorageError

SCHEMA = "bandit_router.replay/1"


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every part: immutable, and nothing beyond its fields is read."""


class LogInfo(_Part, frozen=True, kw_only=True):
    """The log replayed: where it was, its bytes' digest, how many queries were used, its models."""

    path: str
    sha256: str
    queries: int
    models: tuple[str, ...]


class Means(_Part, frozen=True, kw_only=True):
    """Mean score and mean cost per query, USD."""

    mean_score: float
    mean_cost_usd: float


class HalfMeans(_Part, frozen=True, kw_only=True):
    """Means and lift over the queries that came second, the hull taken over those alone."""

    mean_score: float
    mean_cost_usd: float
    lift: float


class Regret(_Part, frozen=True, kw_only=True):
    """Reward per query of each comparator less ours; positive means that we lost.

    ``best_fixed``: the best single model in hindsight. ``hull``: the fixed-arm hull at our own
    spend, so that it is the lift negated. ``oracle``: the best reward of every query.
    """

    best_fixed: float
    hull: float
    oracle: float


class Interval(_Part, frozen=True, kw_only=True):
    """An estimate with its confidence limits."""

    value: float
    lower: float
    upper: float


class EstimatedRegret(_Part, frozen=True, kw_only=True):
    """What the log of our own choices alone lets us say of the regret, in reward per query.

    ``best_fixed``: against the best single model, with a 95 % band that holds at every query at
    once; see :mod:`bandit_router.ope.regret_tracking`. It is about what our pmf earns on average
    over its draws.
    """

    best_fixed: Interval


class Run(_Part, frozen=True, kw_only=True):
    """One policy at one setting and one seed. Reward is score - cost / quality value.

    With ``budget_usd`` a pacer turned the quality value while the run lasted, and
    ``quality_value_usd`` is the one it is measured at (the hull's, at that budget). ``lift`` is
    the mean score above ``hull_score_at_cost``. ``explore_share`` is the share of decisions that
    the uniform part of the pmf drew. ``estimated_regret`` is null for a policy that gave some model
    no chance on some query: it can only be estimated where everything is explored.
    """

    policy: str
    quality_value_usd: float
    budget_usd: float | None
    seed: int
    queries: int
    mean_score: float
    mean_cost_usd: float
    mean_reward: float
    hull_score_at_cost: float
    lift: float
    second_half: HalfMeans
    share: dict[str, float]
    explore_share: float
    regret: Regret
    estimated_regret: EstimatedRegret | None
    decisions_per_second: float


class ReportDocument(_Part, frozen=True, kw_only=True):
    """The whole file. ``hull`` has [mean cost in USD, mean score] of each vertex, ascending."""

    schema: Literal["bandit_router.replay/1"] = SCHEMA
    log: LogInfo
    fixed: dict[str, Means]
    hull: tuple[tuple[float, float], ...]
    oracle: Means
    runs: tuple[Run, ...]


def encode(document: ReportDocument) -> bytes:
    """The file's bytes: JSON, indented, ending with a newline."""
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def decode(content: bytes) -> ReportDocument:
    """Inverse of :func:`encode`. Raises msgspec.ValidationError when the form is another one."""
    return msgspec.json.decode(content, type=ReportDocument)


def write_report(folder: Path, document: ReportDocument, html: str) -> tuple[Path, Path]:
    """Write ``report.json`` and ``report.html`` into ``folder``, each whole or not at all.

    The document is read back from its bytes first: a number that JSON cannot carry (NaN becomes
    null there) must not reach a file.

    Raises:
        StorageError: the folder cannot be made, or a file cannot be written.
    """
    content = encode(document)
    decode(content)
    return (
        write_whole(folder / "report.json", content),
        write_whole(folder / "report.html", html.encode("utf-8", "replace")),
    )


def write_whole(path: Path, content: bytes) -> Path:
    """Write a file by way of a temporary one beside it. Raises StorageError."""
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise StorageError(f"{path}: cannot be written: {error.strerror}") from error
    return path
