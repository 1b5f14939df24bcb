"""The charts of a replay and of the demo, each from plain arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bandit_router.regret import ErrorLedger
from bandit_router.report.document import ReportDocument
from bandit_router.report.grids import bars, heat_map
from bandit_router.report.page import Figure
from bandit_router.report.plot import X_RANGE, Y_RANGE, Plot, Scale, linear, logarithmic, short
from bandit_router.report.summary import Summary

COLOURS = 10
SHOWN_MODELS = 8
_STEPS = 48
_SLICES = 40


def colour(place: int) -> str:
    """CSS class of the place-th series."""
    return f"s{place % COLOURS}"


def score_against_cost(
    document: ReportDocument, summaries: Sequence[Summary], colours: Mapping[str, str]
) -> Figure:
    """Single models, the hull, the oracle, and every policy at every setting.

    Args:
        colours: CSS class of each policy.
    """
    fixed = {m: (v.mean_cost_usd, v.mean_score) for m, v in document.fixed.items()}
    oracle = (document.oracle.mean_cost_usd, document.oracle.mean_score)
    runs = [(s.cost_usd, s.score) for s in summaries]
    everything = [*fixed.values(), oracle, *runs]
    plot = Plot(
        "Score against cost",
        "Mean score and mean cost per query of single models, the fixed-arm hull, the oracle and "
        "every policy.",
        logarithmic([c for c, _ in everything], *X_RANGE),
        linear([s for _, s in everything], *Y_RANGE),
        "mean cost per query, USD (log scale)",
        "mean score",
    )
    hull = [*document.hull, (plot.x.high, document.hull[-1][1])]
    plot.line(_dense(hull), "ink dashed", "Fixed-arm hull: what mixing single models reaches")
    vertices = set(document.hull)
    for model, at in fixed.items():
        plot.dot(at, "soft", f"{model}\nscore {at[1]:.4f}, ${short(at[0])} per query", "square")
        if at in vertices:
            plot.note(at, _cut(model, 24))
    plot.dot(oracle, "ink", f"Oracle\nscore {oracle[1]:.4f}, ${short(oracle[0])}", "star")
    for policy, cls in colours.items():
        points = sorted((s.cost_usd, s.score) for s in summaries if s.policy == policy)
        plot.line(points, f"{cls} thin")
    for s in summaries:
        tip = f"{s.policy}, {s.at}\nscore {s.score:.4f}, ${short(s.cost_usd)}, lift {s.lift:+.4f}"
        plot.dot((s.cost_usd, s.score), colours[s.policy], tip)
    rows = [(m, "single model", f"{v[1]:.4f}", short(v[0])) for m, v in fixed.items()]
    rows.append(("oracle", "cheapest best model", f"{oracle[1]:.4f}", short(oracle[0])))
    rows += [(s.policy, s.at, f"{s.score:.4f}", short(s.cost_usd)) for s in summaries]
    return Figure(
        name="score-cost",
        title="Score against cost",
        note="Squares: one model for every query. Dashed: the fixed-arm hull, which random mixing "
        "of two models reaches. Star: the cheapest of the best models of every query. Circles: "
        "policies, means over seeds.",
        chart=plot.svg(),
        headers=("what", "setting", "score", "USD/query"),
        rows=rows,
        legend=(
            ("soft", "single model"),
            ("ink", "hull, oracle"),
            *((c, p) for p, c in colours.items()),
        ),
    )


def _dense(hull: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points along the hull, for its straight edges are curves on a logarithmic axis."""
    costs, scores = np.array(hull).T
    at = np.unique(np.concatenate([costs, np.geomspace(max(costs[0], 1e-12), costs[-1], 60)]))
    return list(zip(at.tolist(), np.interp(at, costs, scores).tolist(), strict=True))


@dataclass(frozen=True)
class Curve:
    """One policy's cumulative series, one row per seed: ``values`` has shape (seeds, n).

    ``anchors`` says whether it sets the vertical range; others are cut at the edge.
    """

    name: str
    cls: str
    values: np.ndarray
    anchors: bool = True


def cumulative(
    name: str,
    title: str,
    note: str,
    curves: Sequence[Curve],
    y_label: str,
    marks: Sequence[tuple[float, str]] = (),
) -> Figure:
    """Lines of means over seeds with a band from the 10th to the 90th percentile of seeds.

    Args:
        marks: (query, text) of things that happened, in order.
    """
    n = curves[0].values.shape[1]
    at = np.unique(np.linspace(0, n - 1, min(_STEPS, n)).astype(int))
    means = {c.name: c.values[:, at].mean(axis=0) for c in curves}
    ruling = [c for c in curves if c.anchors] or list(curves)
    reach = [c.values[:, at] for c in ruling]
    plot = Plot(
        title,
        note,
        Scale(0.0, float(n), *X_RANGE),
        linear([0.0, *(float(v.min()) for v in reach), *(float(v.max()) for v in reach)], *Y_RANGE),
        "queries seen",
        y_label,
    )
    x = (at + 1).tolist()
    for c in curves:
        if len(c.values) > 1:
            low, high = np.percentile(c.values[:, at], (10, 90), axis=0)
            plot.band(_points(x, low), _points(x, high), c.cls)
    for c in curves:
        plot.line(_points(x, means[c.name]), c.cls)
    plot.marks_x(marks)
    plot.strips(
        x,
        [
            f"after {q:,} queries\n" + "\n".join(f"{k}: {v[i]:.2f}" for k, v in means.items())
            for i, q in enumerate(x)
        ],
    )
    some = np.unique(np.linspace(0, len(x) - 1, min(9, len(x))).astype(int)).tolist()
    return Figure(
        name=name,
        title=title,
        note=note,
        chart=plot.svg(),
        headers=("policy", *(f"{x[i]:,}" for i in some)),
        rows=[(k, *(f"{v[i]:.2f}" for i in some)) for k, v in means.items()],
        legend=tuple((c.cls, c.name) for c in curves),
    )


def _points(x: Sequence[float], y: np.ndarray) -> list[tuple[float, float]]:
    return list(zip(x, y.tolist(), strict=True))


def model_share(
    title: str,
    models: Sequence[str],
    chosen: np.ndarray,
    marks: Sequence[tuple[float, str]] = (),
) -> Figure:
    """Share of every model among the choices, over time.

    Args:
        chosen: shape (seeds, n), column of the model chosen.
        marks: (query, text) of things that happened, in order.
    """
    n = chosen.shape[1]
    slices = np.array_split(np.arange(n), min(_SLICES, n))
    counts = np.array([np.bincount(chosen[:, s].ravel(), minlength=len(models)) for s in slices])
    shares = counts / counts.sum(axis=1, keepdims=True)  # (slices, K)
    order = np.argsort(-shares.mean(axis=0), kind="stable").tolist()
    shown = [k for k in order if shares[:, k].max() > 0.0][:SHOWN_MODELS]
    rest = [k for k in order if k not in shown]
    layers = [(models[k], shares[:, k]) for k in shown]
    if rest:
        layers.append(("other models", shares[:, rest].sum(axis=1)))
    middle = [float(s.mean()) + 1.0 for s in slices]
    plot = Plot(
        title,
        "Share of each model among the choices, over the course of the log, stacked.",
        Scale(0.0, float(n), *X_RANGE),
        Scale(0.0, 1.0, *Y_RANGE),
        "queries seen",
        "share of choices",
    )
    floor = np.zeros(len(slices))
    for place, (name, share) in enumerate(layers):
        top = floor + share
        tip = f"{name}: {share.mean():.1%} of all choices"
        plot.area(_points(middle, floor), _points(middle, top), colour(place), tip)
        floor = top
    plot.marks_x(marks)
    plot.strips(
        middle,
        [
            f"near query {m:,.0f}\n" + "\n".join(f"{k}: {v[i]:.0%}" for k, v in layers)
            for i, m in enumerate(middle)
        ],
    )
    quarters = np.array_split(np.arange(len(slices)), min(4, len(slices)))
    return Figure(
        name="share",
        title=title,
        note="Share of each model among the choices as the log goes on, all seeds together.",
        chart=plot.svg(),
        headers=("model", *(f"part {i + 1} of {len(quarters)}" for i in range(len(quarters)))),
        rows=[(k, *(f"{v[q].mean():.1%}" for q in quarters)) for k, v in layers],
        legend=tuple((colour(place), name) for place, (name, _) in enumerate(layers)),
    )


def confusion(title: str, models: Sequence[str], best: np.ndarray, chosen: np.ndarray) -> Figure:
    """Chosen model against the model with the best reward; both shape (seeds, n)."""
    k = len(models)
    counts = np.bincount((best * k + chosen).ravel(), minlength=k * k).reshape(k, k)
    used = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1)).tolist()
    share = counts[np.ix_(used, used)] / counts.sum()
    names = [models[i] for i in used]
    return Figure(
        name="confusion",
        title=title,
        note="Rows: the model with the best reward for the query. Columns, in the same order: the "
        "model chosen. Share of all queries; the diagonal is right.",
        chart=heat_map(title, names, share),
        headers=("best \\ chosen", *names),
        rows=[(names[i], *(f"{v:.1%}" for v in row)) for i, row in enumerate(share.tolist())],
    )


def errors(
    title: str, ledgers: Mapping[str, Sequence[ErrorLedger]], queries: int, anchors: set[str]
) -> Figure:
    """Reward lost per query to errors towards quality and towards cost, means over seeds.

    Args:
        ledgers: of each policy, one per seed.
        anchors: policies whose bars set the scale; longer ones are cut at the edge.
    """
    lost = {
        p: (
            float(np.mean([x.quality_loss for x in some])),
            float(np.mean([x.cost_loss for x in some])),
        )
        for p, some in ledgers.items()
    }
    counts = {
        p: (
            float(np.mean([x.quality_count for x in some])) / queries,
            float(np.mean([x.cost_count for x in some])) / queries,
        )
        for p, some in ledgers.items()
    }
    ruling = [value for p, pair in lost.items() if p in anchors or not anchors for value in pair]
    return Figure(
        name="errors",
        title=title,
        note="Reward lost per query against the best choice: by answers worse than the best "
        "choice's (towards quality), and by answers as good but dearer (towards cost).",
        chart=bars(
            title,
            [
                (p, [("s0", lost[p][0], _loss_tip(p, "worse answers", lost[p][0], counts[p][0])),
                     ("s1", lost[p][1], _loss_tip(p, "dearer ones", lost[p][1], counts[p][1]))])
                for p in lost
            ],
            max([*ruling, 1e-9]),
        ),
        headers=("policy", "lost: quality", "lost: cost", "share: quality", "share: cost"),
        rows=[
            (p, *(f"{v:.4f}" for v in lost[p]), *(f"{v:.1%}" for v in counts[p]))
            for p in lost
        ],
        legend=(("s0", "towards quality"), ("s1", "towards cost")),
    )  # fmt: skip


def _loss_tip(policy: str, what: str, lost: float, share: float) -> str:
    return f"{policy}: {what}\n{lost:.4f} reward lost per query, {share:.1%} of queries"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
