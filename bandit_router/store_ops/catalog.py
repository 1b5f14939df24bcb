"""A configured catalog against the one that was learned: what differs, as events for the log."""

from __future__ import annotations

import msgspec

from bandit_router.events import Change
from bandit_router.models import Catalog


def catalog_changes(current: Catalog, wanted: Catalog, *, ts: float, app: str) -> list[Change]:
    """The events that lead from one catalog to the other; none when they have the same models.

    Additions come first and removals last, so that at no point the catalog is empty. The order of
    models in a catalog is not compared: it decides nothing.

    Args:
        current: of the learner that is to take the events.
        wanted: of the settings.
        ts: stamped on the events, seconds since the epoch.
        app: owner of the policy.
    """
    added, repriced = [], []
    for spec in wanted:
        if spec.model not in current:
            added.append(spec)
        elif current[spec.model] != spec:
            repriced.append(spec)
    removed = [model for model in current.names if model not in wanted]
    return [
        *(Change(ts=ts, app=app, kind="model_added", data=_data(spec)) for spec in added),
        *(Change(ts=ts, app=app, kind="model_repriced", data=_data(spec)) for spec in repriced),
        *(Change(ts=ts, app=app, kind="model_removed", data={"model": m}) for m in removed),
    ]


def _data(spec: object) -> dict[str, object]:
    return msgspec.to_builtins(spec)
