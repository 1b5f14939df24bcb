"""Off-policy evaluation of a stored or exported log, from its file to a report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np

from bandit_router.adapters.estimators import METHOD, interval
from bandit_router.adapters.interactions import last_position, read_interactions
from bandit_router.adapters.vocabulary import Vocabulary
from bandit_router.bootstrap import FIXED
from bandit_router.errors import InputError
from bandit_router.models import Catalog
from bandit_router.ope.estimate import Estimator
from bandit_router.ope.evaluation import (
    OUTCOMES,
    Fitted,
    Question,
    Survey,
    TargetSums,
    measure,
    survey,
)
from bandit_router.ope.logged import Logged
from bandit_router.ope.outcomes import Folding
from bandit_router.ope.targets import Mixed, Target
from bandit_router.regret import hull_mixture
from bandit_router.store_ops.ope_targets import (
    DEFAULT_TARGETS,
    EACH_FIXED,
    HULL,
    Named,
    is_store,
    prices_usd,
    resolve,
    restored,
    stored_catalogs,
    targets_of,
    trained,
)

SCHEMA = "bandit_router.evaluate/1"
CACHED_ROWS = 1_000_000
"""Logs up to this many rows are kept in memory between the passes (a few hundred bytes each);
longer ones are read again for every pass."""

Work = Callable[[Any, Any], Any]
Mapper = Callable[[Work, Any, Sequence[Any]], list[Any]]
"""``work(shared, job)`` of every job, in order: where the parts of a log are worked on."""


def in_this_process(work: Work, shared: Any, jobs: Sequence[Any]) -> list[Any]:
    """The mapper that needs nothing else."""
    return [work(shared, job) for job in jobs]


@dataclass(frozen=True)
class Request:
    """What to evaluate.

    Attributes:
        log: a store (.db) or an export (.jsonl, .parquet).
        policies: names as :mod:`bandit_router.store_ops.ope_targets` takes them.
        estimators: names in :data:`~bandit_router.ope.evaluation.ESTIMATORS`.
        quality_value_usd: at which rewards are counted and policies decide, USD; None for the
            value logged with each row.
        budget_usd: of the hull, USD per query; None for what the logging policy spent.
        alpha: 1 - coverage of the intervals.
        train_share: part of the log that policies are trained on, in (0, 1).
        parts: into how many parts the log is divided.
        seed: of trained policies.

    Raises:
        InputError: a number is out of its range.
    """

    log: Path
    policies: tuple[str, ...] = DEFAULT_TARGETS
    estimators: tuple[str, ...] = ("ips", "snips", "dr")
    quality_value_usd: float | None = None
    budget_usd: float | None = None
    folding: Folding = "crossed"
    alpha: float = 0.05
    train_share: float = 0.5
    catalog: Catalog | None = None
    key: bytes | None = field(default=None, repr=False)
    parts: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha < 1.0:
            raise InputError(f"alpha {self.alpha!r} must be between 0 and 1")
        if not 0.0 < self.train_share < 1.0:
            raise InputError(f"the share to train on {self.train_share!r} must be between 0 and 1")
        if self.budget_usd is not None and not 0.0 < self.budget_usd < math.inf:
            raise InputError(f"budget {self.budget_usd!r} must be finite and above 0, in USD")
        Question((), self.estimators, self.quality_value_usd, self.folding)


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One estimate. ``standard_error`` is None where a single row tells nothing of the spread."""

    value: float
    standard_error: float | None
    low: float
    high: float
    n: int


class TargetReport(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one target.

    Attributes:
        refused: why there are no estimates; None when there are.
        matched: rows whose action the target might have chosen.
        effective_n: (sum w)^2 / sum w^2, rows.
        largest_weight, mean_weight: of the importance weights; the mean is about 1.
        share_off_support: of the target's choices, those that had no chance in the log.
        estimates: outcome to estimator to figure; None where no row has that outcome.
        about: how the target came about.
    """

    name: str
    about: str
    refused: str | None
    matched: int
    effective_n: float
    largest_weight: float
    mean_weight: float
    share_off_support: float
    estimates: dict[str, dict[str, Figure | None]]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an evaluation.

    Attributes:
        rows: evaluated.
        first: position of the first row that may be evaluated.
        last: position of the last row that was.
        left_out: rows left out, by reason.
        notes: what a reader should know besides.
    """

    schema: str = SCHEMA
    log: str
    rows: int
    first: int
    last: int
    left_out: dict[str, int]
    models: tuple[str, ...]
    quality_value_usd: float | None
    folding: str
    alpha: float
    interval: str = METHOD
    notes: tuple[str, ...]
    targets: tuple[TargetReport, ...]


def evaluate(request: Request, run: Mapper = in_this_process) -> Report:
    """Evaluate the request's targets on its log.

    A policy that learns is trained on the first part of the log and asked, as it then stands, about
    the rest; a snapshot of this store is asked about the rows after it. All targets are evaluated
    on the same rows.

    Args:
        run: works on the parts of the log; asking policies is done in this process.

    Raises:
        InputError: nothing is left to evaluate on, a row breaks a range, or the propensities are
            not those that drew the actions.
    """
    named = resolve(request.policies, request.log, request.key)
    divided = named.learners or named.learned_until or request.parts > 1
    # It costs a pass over a file. A store may grow while it is evaluated, so its end is fixed.
    last = last_position(request.log) if divided or is_store(request.log) else None
    train_until = int(last * request.train_share) if named.learners and last else 0
    after = max(train_until, named.learned_until)
    asks = bool(named.learners or named.snapshots)
    with _Source(request, after, last, run, asks=asks) as source:
        if source.rows == 0:
            raise InputError(_nothing(request, named, after, last, source.left_out))
        return _evaluated(request, named, source, train_until, after)


def _evaluated(
    request: Request, named: Named, source: _Source, train_until: int, after: int
) -> Report:
    question = Question(
        source.models, request.estimators, request.quality_value_usd, request.folding
    )
    first = source.survey(question)
    problem = first.propensities.problem()
    if problem is not None:
        raise InputError(f"{request.log}: {problem}")
    stored = stored_catalogs(request.log, request.key)
    catalog = request.catalog or (stored and stored.now)
    prices = prices_usd(source.models, catalog, first.mean_costs_usd())
    start = request.catalog or (stored and stored.first)
    policies = {name: restored(snapshot) for name, snapshot in named.snapshots.items()}
    for name in named.learners:
        policies[name] = trained(
            name, request.log, train_until, start, dimension=source.features, seed=request.seed
        )
    targets = targets_of(named, source.models, prices, policies, request.quality_value_usd)
    fitted = first.finish(prices)
    sums = list(zip(targets, source.measure(fitted, targets), strict=True))
    about = _about(named, request.log, train_until)
    reports = [
        _report(s, target.name, about.get(target.name, ""), request.alpha) for target, s in sums
    ]
    if EACH_FIXED not in named.names:
        reports = [report for report in reports if report.name in named.names]
    if HULL in named.names:
        reports.append(_hull(request, source, fitted, sums, first.mean_cost_usd()))
    return Report(
        log=str(request.log),
        rows=source.rows,
        first=after + 1,
        last=source.last,
        left_out=dict(sorted(source.left_out.items())),
        models=source.models,
        quality_value_usd=request.quality_value_usd,
        folding=request.folding,
        alpha=request.alpha,
        notes=tuple(_notes(named, after, catalog, source.models, prices)),
        targets=tuple(reports),
    )


class _Source:
    """The rows to evaluate on, as often as they are needed; a context manager."""

    def __init__(
        self, request: Request, after: int, last: int | None, run: Mapper, *, asks: bool
    ) -> None:
        self._path, self._asks = request.log, asks
        self._run = in_this_process if asks else run
        self._jobs: list[_Part] = [(after, None)]
        if last is not None:
            edges = np.linspace(after, max(last, after), request.parts + 1).astype(int).tolist()
            self._jobs = [(a, b) for a, b in pairwise(edges) if b > a]
        room = 0 if asks else CACHED_ROWS // request.parts
        scans = self._run(_scan, (request.log, room), self._jobs)
        self.models = Vocabulary(m for scan in scans for m in scan.models).models
        self.left_out: Counter[str] = sum((scan.left_out for scan in scans), Counter())
        self.rows = sum(scan.rows for scan in scans)
        self.last = max((scan.last for scan in scans), default=after)
        self.features = next((scan.features for scan in scans if scan.rows), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        _kept.clear()

    def survey(self, question: Question) -> Survey:
        """The first pass."""
        parts = self._run(_survey, (self._path, question, self.features), self._jobs)
        return sum(parts[1:], parts[0])

    def measure(self, fitted: Fitted, targets: Sequence[Target]) -> list[TargetSums]:
        """The second pass."""
        shared = (self._path, self._asks, fitted, targets)
        parts = self._run(_measure, shared, self._jobs)
        return [sum(of_one[1:], of_one[0]) for of_one in zip(*parts, strict=True)]


_Part = tuple[int, int | None]
"""Rows after the first and up to the second position, or to the end."""

_kept: dict[tuple[Path, _Part], list[Logged]] = {}
"""Parts that this process keeps between the passes of one evaluation."""


@dataclass
class _Scan:
    models: tuple[str, ...]
    left_out: Counter[str]
    rows: int
    last: int
    features: int


def _scan(shared: tuple[Path, int], part: _Part) -> _Scan:
    path, room = shared
    vocabulary, left_out = Vocabulary(), Counter[str]()
    rows, last, features, kept = 0, 0, 0, []
    for log in read_interactions(path, vocabulary, left_out, after=part[0], until=part[1]):
        rows += len(log)
        features = features or log.features.shape[1]
        last = int(log.position[-1])
        if rows <= room:
            kept.append(log)
        else:
            kept.clear()
    if rows <= room:
        _kept[path, part] = kept
    return _Scan(vocabulary.models, left_out, rows, last, features)


def _read(path: Path, models: Sequence[str], part: _Part, *, asks: bool) -> Iterator[Logged]:
    """A part of the log; from memory if this very process has kept it."""
    if not asks and (path, part) in _kept:
        return iter(_kept[path, part])
    return read_interactions(
        path, Vocabulary(models), Counter(), contexts=asks, after=part[0], until=part[1]
    )


def _survey(shared: tuple[Path, Question, int], part: _Part) -> Survey:
    path, question, features = shared
    return survey(question, features, _read(path, question.models, part, asks=False))


def _measure(shared: tuple[Path, bool, Fitted, Sequence[Target]], part: _Part) -> list[TargetSums]:
    path, asks, fitted, targets = shared
    return measure(fitted, targets, _read(path, fitted.question.models, part, asks=asks))


def _report(sums: TargetSums, name: str, about: str, alpha: float) -> TargetReport:
    moments = _widest(sums).moments
    refused = sums.support.refusal(moments)
    return TargetReport(
        name=name,
        about=about,
        refused=refused,
        matched=moments.matched,
        effective_n=moments.effective_n,
        largest_weight=moments.largest_weight,
        mean_weight=moments.mean_weight,
        share_off_support=sums.support.share_off,
        estimates={}
        if refused
        else {
            outcome: {name: _figure(e, alpha) for name, e in sums.estimators[outcome].items()}
            for outcome in OUTCOMES
        },
    )


def _widest(sums: TargetSums) -> Estimator:
    """An estimator of the outcome that most rows have."""
    return max(
        (next(iter(sums.estimators[outcome].values())) for outcome in OUTCOMES),
        key=lambda estimator: estimator.moments.n,
    )


def _figure(estimator: Estimator, alpha: float) -> Figure | None:
    if estimator.moments.matched == 0:
        return None
    found = estimator.estimate()
    low, high = interval(estimator, alpha)
    error = found.standard_error
    return Figure(
        value=found.value,
        standard_error=error if math.isfinite(error) else None,
        low=low,
        high=high,
        n=found.n,
    )


def _hull(
    request: Request,
    source: _Source,
    fitted: Fitted,
    sums: Sequence[tuple[Target, TargetSums]],
    spent_usd: float,
) -> TargetReport:
    """The mixture of two fixed models that is best at the budget, by the estimates themselves."""
    estimator = next(name for name in ("dr", "snips", "ips") if name in request.estimators)
    models: list[tuple[Target, float, float]] = []
    for target, s in sums:
        score, cost = (s.estimators[outcome][estimator] for outcome in ("score", "cost_usd"))
        known = score.moments.matched and cost.moments.matched
        if target.name.startswith(FIXED) and known and not s.support.refusal(score.moments):
            dear = max(cost.estimate().value, 0.0)
            models.append((target, min(max(score.estimate().value, 0.0), 1.0), dear))
    if not models:
        return _refused(HULL, "the hull needs a fixed model that the log can answer for")
    budget = request.budget_usd or spent_usd
    shares = hull_mixture(
        np.array([[score for _, score, _ in models]]),
        np.array([[cost for _, _, cost in models]]),
        budget,
    )
    parts = [(float(p), t) for p, (t, _, _) in zip(shares, models, strict=True) if p > 0.0]
    [found] = source.measure(fitted, [Mixed(HULL, tuple(parts))])
    mix = " and ".join(f"{share:.1%} {t.name.removeprefix(FIXED)}" for share, t in parts)
    about = (
        f"{mix}, the hull of the fixed models at {budget:.4g} USD per query; chosen by the same "
        "estimates, so its score is optimistic"
    )
    if budget < min(cost for _, _, cost in models):
        about += "; no fixed model is that cheap, so it is the cheapest"
    return _report(found, HULL, about, request.alpha)


def _refused(name: str, why: str) -> TargetReport:
    return TargetReport(
        name=name,
        about="",
        refused=f"{name} cannot be estimated from this log: {why}",
        matched=0,
        effective_n=0.0,
        largest_weight=0.0,
        mean_weight=0.0,
        share_off_support=0.0,
        estimates={},
    )


def _about(named: Named, log: Path, train_until: int) -> dict[str, str]:
    how = f"trained on rows 1 to {train_until} of the log, then frozen"
    about = dict.fromkeys(named.learners, how)
    for name, snapshot in named.snapshots.items():
        about[name] = f"snapshot {snapshot.id}, frozen"
        if named.learned_until < snapshot.manifest.learn_seq:
            about[name] += f"; taken not to have learned from {log.name}"
    return about


def _nothing(
    request: Request, named: Named, after: int, last: int | None, left_out: Counter[str]
) -> str:
    if named.learned_until and last is not None and after >= last:
        return (
            f"{request.log}: the snapshot has learned from all {last} rows; evaluate an earlier "
            "one, or wait for further rows"
        )
    counts = ", ".join(f"{n} {reason}" for reason, n in sorted(left_out.items()))
    return (
        f"{request.log}: there is no interaction to evaluate on"
        + (f" after row {after}" if after else "")
        + (f" (left out: {counts})" if counts else "")
    )


def _notes(
    named: Named,
    after: int,
    catalog: Catalog | None,
    models: Sequence[str],
    prices: dict[str, float],
) -> Iterator[str]:
    if after:
        yield f"rows up to {after} were learned from and are not evaluated on"
    unpriced = [m for m in models if catalog is None or m not in catalog]
    if unpriced and {"strongest", "cheapest"} & set(named.names):
        yield f"no list price for {', '.join(unpriced)}: their mean cost in the log stands for it"
    never = [model for model in models if model not in prices]
    if never:
        yield f"no price at all is known of {', '.join(never)}"
