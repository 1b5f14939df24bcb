"""``report.html`` of the demo: what happened when the favourite model failed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bandit_router.demo.story import DropInfo, Line, Recovery, Story, Stretch
from bandit_router.demo.world import World
from bandit_router.regret import rewards
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
from bandit_router.report.regret_curve import RegretCurve
from bandit_router.report.regret_figure import estimated_regret
from bandit_router.report.summary import summarise

HEADERS = ("per query", "score", "USD per 1,000", "reward")
Marks = list[tuple[float, str]]


def demo_page(world: World, measured: Sequence[Measured], story: Story) -> Page:
    """The demo as a page.

    Args:
        measured: the live run first, then every single model.
    """
    colours = _colours(world.table.models, measured)
    marks = _marks(story)
    result, table = document(world.table, measured), world.table
    live = measured[0]
    chosen, best = live.chosen[np.newaxis], live.best[np.newaxis]
    ledgers = {m.run.policy: [m.errors] for m in measured}
    estimated = (
        () if live.estimated is None else (estimated_regret("bandit", live.estimated, marks),)
    )
    return Page(
        title="Demo: a router, three models, and one that fails",
        lead=(*sentences(story), *regret_sentences(live.estimated)),
        tables=tuple((_caption(part), HEADERS, part_cells(part)) for part in story.parts),
        sections=(
            Section(
                "How the router noticed",
                "The dashed lines mark the drop, of which the router was not told, and its drift "
                "alarm.",
                (
                    model_share("Models chosen, over time", table.models, chosen, marks),
                    _regret(world, measured, story, colours, marks),
                    *estimated,
                ),
            ),
            Section(
                "What was possible",
                "Over the whole stream, the drop included. A policy above the dashed line is "
                "better than any random mixture of single models.",
                (
                    score_against_cost(
                        result, summarise([live.run]), {"bandit": colours["bandit"]}
                    ),
                    _oracle(measured, colours, marks),
                    confusion("Chosen against best, bandit", table.models, best, chosen),
                    errors("Errors by kind", ledgers, len(table), {"bandit"}),
                ),
            ),
        ),
    )


def sentences(story: Story) -> list[str]:
    """The story in words, for the page and the terminal."""
    value = _usd(story.quality_value_usd)
    first = (
        f"{story.queries:,} real prompts, {len(story.parts[0].fixed)} models, one query after the "
        "other; each answer's score came back some 30 queries later. A fully good answer is worth "
        f"{value} (reward = score - cost / {value})."
    )
    said = [first]
    if story.drop is not None and story.recovery is not None:
        said += _failed(story.drop, story.recovery)
    said.append(_saved(story))
    return said


def regret_sentences(curve: RegretCurve | None) -> list[str]:
    """The estimated regret per query beside the true one, for the page and the terminal."""
    if curve is None:
        return []
    value, lower, upper, true = curve.last
    where = "inside" if lower <= true <= upper else "outside"
    said = (
        f"Regret per query against the best single model, estimated from the router's own log: "
        f"{value:+.4f}, {1.0 - curve.alpha:.0%} band {lower:+.4f} to {upper:+.4f} at any time; "
        f"the true one, {true:+.4f}, lies {where} it."
    )
    return [said]


def _saved(story: Story) -> str:
    whole = story.parts[-1]
    strongest = next(line for line in whole.fixed if line.name == story.strongest)
    return (
        f"Always asking {story.strongest}, the strongest, would have scored "
        f"{strongest.mean_score:.3f} instead of {whole.bandit.mean_score:.3f}, for "
        f"${1000 * strongest.mean_cost_usd:.2f} instead of "
        f"${1000 * whole.bandit.mean_cost_usd:.2f} per 1,000 queries: {story.cost_saved:.0%} of "
        "the cost was saved."
    )


def _failed(drop: DropInfo, recovery: Recovery) -> list[str]:
    what = (
        f"From query {drop.query:,} on, every score of {drop.model} was multiplied by "
        f"{drop.factor:g}, at the same price; the router was not told."
    )
    after, halved = recovery.alarm_after_queries, recovery.halved_after_queries
    share = (
        "Its share of the choices never fell to half."
        if halved is None
        else f"{halved} queries after the drop its share of the choices had fallen to half"
        f" (from {recovery.share_before:.0%}; {recovery.share_end:.0%} at the end)."
    )
    alarm = (
        "No drift alarm was raised about it."
        if after is None
        else f"The drift alarm came {after} queries after the drop."
    )
    regret = f"the router got {_regret_words(recovery.regret_until_alarm)} until the alarm"
    if recovery.regret_after_alarm is not None:
        regret += f", {_regret_words(recovery.regret_after_alarm)} from then on"
    compared = (
        f"Against the best single model after the drop, known in hindsight: {regret}. "
        f"Staying with {drop.model} would have cost {recovery.reward_kept:.3f} reward per query."
    )
    return [what, f"{share} {alarm}", compared]


def _regret_words(regret: float) -> str:
    return f"{abs(regret):.3f} reward per query {'less' if regret >= 0 else 'more'}"


def part_cells(part: Stretch) -> list[tuple[str, ...]]:
    """A stretch as table rows under :data:`HEADERS`: ours, single models, hull, oracle."""
    lines = [part.bandit, *part.fixed, part.hull, part.oracle]
    return [_cells(line, best=line.name == part.best_fixed) for line in lines]


def _cells(line: Line, *, best: bool) -> tuple[str, ...]:
    name = f"{line.name} (best)" if best else line.name
    usd = f"{1000 * line.mean_cost_usd:.3f}"
    return name, f"{line.mean_score:.4f}", usd, f"{line.mean_reward:.4f}"


def _usd(value: float) -> str:
    return f"${value:.2f}" if value >= 0.01 and round(value, 2) == value else f"${value:g}"


def _caption(part: Stretch) -> str:
    return f"{part.name}, {part.queries:,} queries"


def _marks(story: Story) -> Marks:
    marks: Marks = []
    if story.drop is not None:
        marks.append((story.drop.query, "drop"))
    marks += [(alarm.query, "alarm") for alarm in story.alarms]
    return sorted(marks)


def _colours(models: Sequence[str], measured: Sequence[Measured]) -> dict[str, str]:
    """CSS class by policy: that of a single model is the model's in the chart of shares."""
    counts = np.bincount(measured[0].chosen, minlength=len(models))
    order = np.argsort(-counts, kind="stable").tolist()
    return {
        "bandit": colour(len(models)),
        **{f"fixed:{models[column]}": colour(place) for place, column in enumerate(order)},
    }


def short_name(model: str) -> str:
    """A model's name without its vendor."""
    return model.rpartition("/")[2]


def _regret(
    world: World,
    measured: Sequence[Measured],
    story: Story,
    colours: dict[str, str],
    marks: Marks,
) -> Figure:
    """Cumulative regret against the best single model of each half, which nobody could know."""
    reward = rewards(world.table.scores, world.table.costs_usd, story.quality_value_usd)
    first = story.parts[0].queries
    best = [int(np.argmax(part.mean(axis=0))) for part in (reward[:first], reward[first:])]
    target = np.concatenate([reward[:first, best[0]], reward[first:, best[1]]])
    curves = [
        Curve(
            m.run.policy,
            colours[m.run.policy],
            np.cumsum(target - m.reward)[np.newaxis],
            anchors=m.run.policy == "bandit",
        )
        for m in measured
    ]
    return cumulative(
        "regret-best-of-halves",
        "Cumulative regret against the best single model of each half",
        f"Reward behind {short_name(world.table.models[best[0]])} in the first half and "
        f"{short_name(world.table.models[best[1]])} in the second; lower is better. Lines that "
        "leave the chart are cut at its edge.",
        curves,
        "reward behind",
        marks,
    )


def _oracle(measured: Sequence[Measured], colours: dict[str, str], marks: Marks) -> Figure:
    curves = [
        Curve(
            m.run.policy,
            colours[m.run.policy],
            np.cumsum(m.against.oracle - m.reward)[np.newaxis],
            anchors=m.run.policy == "bandit",
        )
        for m in measured
    ]
    return cumulative(
        "regret-oracle",
        "Cumulative regret against the oracle",
        "Reward behind the best choice for every query, in hindsight; lower is better.",
        curves,
        "reward behind",
        marks,
    )
