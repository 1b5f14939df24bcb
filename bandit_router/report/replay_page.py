"""The page of a replay: its table, and one section of charts per setting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bandit_router.adapters.tables import OutcomeTable
from bandit_router.report.figures import (
    Curve,
    colour,
    confusion,
    cumulative,
    errors,
    model_share,
    score_against_cost,
)
from bandit_router.report.measure import Measured, document
from bandit_router.report.page import Figure, Page, Section
from bandit_router.report.regret_figure import estimated_regret
from bandit_router.report.summary import HEADERS, LEGEND, grouped, summarise, summary_cells

COMPARATORS = (
    ("best_fixed", "the best single model", "the single model with the best mean reward"),
    ("hull", "the fixed-arm hull", "a random mixture of single models that spends as much"),
    ("oracle", "the oracle", "the best choice for every query"),
)
UNTAUGHT = ("uniform", "cheapest", "strongest")

Groups = dict[tuple[str, str], list[Measured]]


def replay_page(table: OutcomeTable, measured: Sequence[Measured]) -> Page:
    """Everything that a replay found, as a page; the first policy is shown in full."""
    runs = [m.run for m in measured]
    result, summaries = document(table, measured), summarise(runs)
    colours = {p: colour(i) for i, p in enumerate(dict.fromkeys(r.policy for r in runs))}
    groups = {key: [measured[i] for i in places] for key, places in grouped(runs).items()}
    settings = list(dict.fromkeys(at for at, _ in groups))
    seeds = len({run.seed for run in runs})
    first = Section(
        "Score against cost",
        "A policy above the dashed line is better than any random mixture of single models.",
        (score_against_cost(result, summaries, colours),),
    )
    return Page(
        title=f"Replay of {table.path}",
        lead=(_lead(table, seeds), LEGEND),
        tables=tuple(
            (at, HEADERS, summary_cells([s for s in summaries if s.at == at])) for at in settings
        ),
        sections=(first, *(_setting(table, at, groups, colours) for at in settings)),
    )


def _lead(table: OutcomeTable, seeds: int) -> str:
    return (
        f"{len(table):,} queries, {len(table.models)} models, means over {seeds} seed"
        f"{'s' if seeds > 1 else ''}. One pass: every query is decided first and learned from "
        "afterwards; a policy sees the outcome of the model it chose and of no other."
    )


def _setting(table: OutcomeTable, at: str, groups: Groups, colours: dict[str, str]) -> Section:
    mine = {policy: some for (label, policy), some in groups.items() if label == at}
    focus, *others = mine
    figures: list[Figure] = [_regret(mine, colours, *which) for which in COMPARATORS]
    ledgers = {policy: [m.errors for m in some] for policy, some in mine.items()}
    figures += _estimated(focus, mine[focus])
    figures += _of_policy(table, focus, mine[focus])
    figures.append(errors("Errors by kind", ledgers, len(table), _taught(mine)))
    return Section(
        title=f"At {at}",
        note="Cumulative regret: reward (score less cost / quality value) that each comparator "
        "collected more than the policy. Lines are means over seeds, bands run from the 10th to "
        "the 90th percentile of the seeds; lines that leave the chart are cut at its edge.",
        figures=tuple(figures),
        folded=tuple(
            f
            for policy in others
            for f in (*_estimated(policy, mine[policy]), *_of_policy(table, policy, mine[policy]))
        ),
        folded_title="The other policies: estimated regret, and choices",
    )


def _taught(policies: dict[str, list[Measured]]) -> set[str]:
    """The policies that learn, which set the scales."""
    return {p for p in policies if p not in UNTAUGHT and not p.startswith("fixed:")}


def _regret(
    mine: dict[str, list[Measured]], colours: dict[str, str], field: str, name: str, what: str
) -> Figure:
    curves = [
        Curve(
            policy,
            colours[policy],
            np.array([np.cumsum(getattr(m.against, field) - m.reward) for m in some]),
            anchors=policy in _taught(mine),
        )
        for policy, some in mine.items()
    ]
    return cumulative(
        f"regret-{field.replace('_', '-')}",
        f"Cumulative regret against {name}",
        f"Reward behind {what}, in hindsight; lower is better.",
        curves,
        "reward behind",
    )


def _estimated(policy: str, some: Sequence[Measured]) -> list[Figure]:
    """Of the first seed: a band is about one run."""
    curve, seed = some[0].estimated, some[0].run.seed
    return [] if curve is None else [estimated_regret(f"{policy}, seed {seed}", curve)]


def _of_policy(table: OutcomeTable, policy: str, some: Sequence[Measured]) -> list[Figure]:
    chosen = np.array([m.chosen for m in some])
    best = np.array([m.best for m in some])
    return [
        model_share(f"Models chosen by {policy}", table.models, chosen),
        confusion(f"Chosen against best, {policy}", table.models, best, chosen),
    ]
