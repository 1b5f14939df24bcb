"""What the demo has to tell beside ``report.json``: the drop, how it was noticed, what it cost."""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np

from bandit_router.demo.live import Record
from bandit_router.demo.world import World
from bandit_router.events import Change
from bandit_router.regret import best_reward_choice, fixed_hull, rewards

WINDOW = 400
"""Queries over which a share is taken before the drop and at the end."""
_RECENT = 50


class DropInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What was done to the world; see :class:`~bandit_router.demo.world.Drop`."""

    model: str
    query: int
    factor: float


class AlarmInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A drift alarm.

    Attributes:
        query: how many queries had been decided when it was raised.
        queries_after_drop: the same, counted from the drop; None when none happened before it.
        interactions: of the model since it was first watched.
        shortfall: mean of the expected less the observed score, over the recent ones.
    """

    model: str
    query: int
    queries_after_drop: int | None
    interactions: int
    shortfall: float


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """How the router got over the drop. Rewards are per query, score less cost / quality value.

    Attributes:
        alarm_after_queries: queries decided from the drop to the first alarm about that model.
        halved_after_queries: queries from the drop until the model's share among the last 50
            choices was first half of ``share_before`` or less.
        share_before, share_end: of the model among the last ``window`` queries before the drop,
            and of the whole stream.
        share_after_alarm: from the alarm to the end; None without an alarm.
        regret_until_alarm, regret_after_alarm: reward per query below the best single model after
            the drop, before and after the alarm; without an alarm the first covers everything.
        reward_kept: reward per query above that of staying with the failing model.
    """

    alarm_after_queries: int | None
    halved_after_queries: int | None
    window: int
    share_before: float
    share_after_alarm: float | None
    share_end: float
    regret_until_alarm: float
    regret_after_alarm: float | None
    reward_kept: float


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One way to answer the queries of a stretch, per query."""

    name: str
    mean_score: float
    mean_cost_usd: float
    mean_reward: float


class Stretch(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the stream: ours and what else was possible.

    Attributes:
        fixed: one model for every query, in the log's order.
        best_fixed: the one of them with the best reward, in hindsight.
        hull: the random mixture of single models that spends what we spent.
        oracle: the model with the best reward, query by query.
    """

    name: str
    queries: int
    bandit: Line
    fixed: tuple[Line, ...]
    best_fixed: str
    hull: Line
    oracle: Line


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """``demo.json``.

    Attributes:
        parts: before the drop (or the first half), after it, and the whole.
        strongest: the model with the best mean score over the whole.
        cost_saved: share of the cost of always asking it that was saved.
        score_given_up: its mean score less ours.
    """

    schema: Literal["bandit_router.demo/1"] = "bandit_router.demo/1"
    quality_value_usd: float
    seed: int
    queries: int
    drop: DropInfo | None
    alarms: tuple[AlarmInfo, ...]
    recovery: Recovery | None
    parts: tuple[Stretch, ...]
    strongest: str
    cost_saved: float
    score_given_up: float


def tell(
    world: World, record: Record, changes: list[tuple[int, Change]], quality_value_usd: float
) -> Story:
    """The story of a finished demo.

    Args:
        record: of every query.
        changes: the store's, with their offsets.
    """
    n, table, chosen = len(world), world.table, record.chosen
    alarms = tuple(_alarm(world, record, *change) for change in changes)
    middle = world.drop.query if world.drop else n // 2
    names = ("before the drop", "after the drop") if world.drop else ("first half", "second half")
    ours = table.costs_usd[np.arange(n), chosen].mean()
    score = table.scores[np.arange(n), chosen].mean()
    strongest = int(np.argmax(table.scores.mean(axis=0)))
    return Story(
        quality_value_usd=quality_value_usd,
        seed=world.seed,
        queries=n,
        drop=DropInfo(**vars(world.drop)) if world.drop else None,
        alarms=alarms,
        recovery=_recovery(world, chosen, alarms, quality_value_usd) if world.drop else None,
        parts=(
            _stretch(names[0], world, chosen, slice(0, middle), quality_value_usd),
            _stretch(names[1], world, chosen, slice(middle, n), quality_value_usd),
            _stretch("the whole", world, chosen, slice(0, n), quality_value_usd),
        ),
        strongest=table.models[strongest],
        cost_saved=float(1.0 - ours / table.costs_usd[:, strongest].mean()),
        score_given_up=float(table.scores[:, strongest].mean() - score),
    )


def _alarm(world: World, record: Record, offset: int, change: Change) -> AlarmInfo:
    query = record.decided_by(offset)
    since = query - world.drop.query if world.drop else -1
    return AlarmInfo(
        model=change.data["model"],
        query=query,
        queries_after_drop=since if since >= 0 else None,
        interactions=change.data["interactions"],
        shortfall=change.data["shortfall"],
    )


def _recovery(
    world: World, chosen: np.ndarray, alarms: tuple[AlarmInfo, ...], value: float
) -> Recovery:
    drop, n = world.drop, len(world)
    column = world.table.models.index(drop.model)
    ours = chosen == column
    window = min(WINDOW, drop.query, n - drop.query)
    before = float(ours[drop.query - window : drop.query].mean())
    noticed = [
        a.query for a in alarms if a.model == drop.model and a.queries_after_drop is not None
    ]
    at = noticed[0] if noticed else None
    reward = rewards(world.table.scores, world.table.costs_usd, value)
    best = int(np.argmax(reward[drop.query :].mean(axis=0)))
    lost = reward[:, best] - reward[np.arange(n), chosen]
    later = at is not None and at < n
    return Recovery(
        alarm_after_queries=None if at is None else at - drop.query,
        halved_after_queries=_halved(ours, drop.query, before),
        window=window,
        share_before=before,
        share_after_alarm=float(ours[at:].mean()) if later else None,
        share_end=float(ours[n - window :].mean()),
        regret_until_alarm=float(lost[drop.query : at].mean()),
        regret_after_alarm=float(lost[at:].mean()) if later else None,
        reward_kept=float((reward[:, best] - lost - reward[:, column])[drop.query :].mean()),
    )


def _halved(ours: np.ndarray, drop: int, before: float) -> int | None:
    for query in range(drop + 1, len(ours) + 1):
        if ours[max(query - _RECENT, 0) : query].mean() <= before / 2:
            return query - drop
    return None


def _stretch(name: str, world: World, chosen: np.ndarray, part: slice, value: float) -> Stretch:
    scores, costs = world.table.scores[part], world.table.costs_usd[part]
    rows = np.arange(len(scores))

    def line(label: str, score: float, cost_usd: float) -> Line:
        return Line(
            name=label,
            mean_score=float(score),
            mean_cost_usd=float(cost_usd),
            mean_reward=float(score - cost_usd / value),
        )

    def picked(label: str, columns: np.ndarray) -> Line:
        return line(label, scores[rows, columns].mean(), costs[rows, columns].mean())

    bandit = picked("bandit", chosen[part])
    fixed = tuple(
        line(model, scores[:, k].mean(), costs[:, k].mean())
        for k, model in enumerate(world.table.models)
    )
    hull = fixed_hull(scores, costs).score_at(bandit.mean_cost_usd)
    return Stretch(
        name=name,
        queries=len(rows),
        bandit=bandit,
        fixed=fixed,
        best_fixed=max(fixed, key=lambda f: f.mean_reward).name,
        hull=line("hull at our spend", hull, bandit.mean_cost_usd),
        oracle=picked("oracle", best_reward_choice(scores, costs, value)),
    )
