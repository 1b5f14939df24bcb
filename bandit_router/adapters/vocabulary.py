"""What the readers of logged interactions share: the models met, who is left out, and folds."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from bandit_router.errors import LogFormatError

BATCH = 16_384
"""Rows that are decoded at once."""

FORCED, NOT_LEARNED, NO_OUTCOME = "forced", "not_learned", "no_outcome"
"""Why a row is left out: its action was not drawn, it is not to be learned from (another variant
decided, or its propensity is unknown), or neither score nor cost ever came."""


class Vocabulary:
    """The models of a log in the order in which they are met, which only ever grows."""

    def __init__(self, models: Iterable[str] = ()) -> None:
        self._columns: dict[str, int] = {}
        for model in models:
            self._columns.setdefault(model, len(self._columns))
        self._known: dict[tuple[str, ...], np.ndarray] = {}

    @property
    def models(self) -> tuple[str, ...]:
        """All models so far."""
        return tuple(self._columns)

    def column(self, model: str) -> int | None:
        """Column of a model; None when it is not known."""
        return self._columns.get(model)

    def columns(self, models: tuple[str, ...]) -> np.ndarray:
        """Columns of the models, which are added where they are new."""
        found = self._known.get(models)
        if found is None:
            places = [self._columns.setdefault(model, len(self._columns)) for model in models]
            found = np.array(places, dtype=np.intp)
            if len(self._known) < 4096:
                self._known[models] = found
        return found


def action_columns(
    actions: list[str], position: np.ndarray, vocabulary: Vocabulary, path: Path
) -> np.ndarray:
    """Column of each action, (n,). Raises LogFormatError when one was never eligible so far."""
    found = [vocabulary.column(action) for action in actions]
    if None in found:
        wrong = found.index(None)
        raise LogFormatError(
            f"unknown action {actions[wrong]!r:.80}: it is none of the eligible models",
            path=str(path),
            row=int(position[wrong]),
        )
    return np.array(found, dtype=np.intp)


def fold_keys(texts: Iterable[str]) -> np.ndarray:
    """A hash of each text, uint32: the same in every process and release."""
    keys = [zlib.crc32(text.encode("utf-8", "surrogatepass")) for text in texts]
    return np.array(keys, dtype=np.uint32)
