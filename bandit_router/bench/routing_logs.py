"""The logs that `bench quality` runs on."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from bandit_router.adapters.tables import OutcomeTable, read_table
from bandit_router.errors import InputError

QUALITY_VALUES_USD: Mapping[str, tuple[float, ...]] = {
    "zeroeval": (0.1146, 0.01146, 0.003437),
    "routellm_gsm8k": (0.1436, 0.01436, 0.004308),
    "alpaca_eval1": (0.444, 0.0444, 0.01333),
}
"""Log to quality values: at these, the best-scoring model's mean cost is 3 %, 30 % and all of what
a fully good answer is worth."""

DEFAULT_DATA = Path("../shared/data")


def has_paretobandit() -> bool:
    """Whether the package with its logs is installed; does not import it."""
    return importlib.util.find_spec("pareto_bandit") is not None


def find_data(given: Path | None) -> Path | None:
    """The folder of the routing logs; None when none is given and the usual one is absent.

    Raises:
        InputError: a folder is given and has no ``models.json``.
    """
    folder = given or DEFAULT_DATA
    if (folder / "models.json").is_file():
        return folder
    if given is None:
        return None
    raise InputError(f"--data {given}: no models.json there; name the folder of the routing logs")


def default_arms(folder: Path) -> dict[str, tuple[str, ...]]:
    """Log to the models that ``models.json`` marks as its sensible pool.

    Raises:
        InputError: the file is not in that form.
    """
    path = folder / "models.json"
    try:
        arms = json.loads(path.read_text(encoding="utf-8"))["arms"]
        return {
            log: tuple(arm["model"] for arm in arms[log] if arm["default_arm"])
            for log in QUALITY_VALUES_USD
            if log in arms
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a list of models and arms: {error!r}") from error


def read_logs(
    folder: Path, folds: Sequence[int], limit: int | None = None
) -> dict[str, OutcomeTable]:
    """The routing logs of ``folder``, restricted to their default arms and ``folds``.

    Raises:
        LogFormatError: a log is missing, damaged, or has no embeddings or none of those folds.
    """
    tables = {}
    for log, models in default_arms(folder).items():
        path = folder / f"{log}.parquet"
        table = read_table(path, models=models, folds=folds, limit=limit, context_columns=["task"])
        if table.embeddings is None:
            raise InputError(f"{path}: no {log}.emb.npy beside it; the bench needs the embeddings")
        tables[log] = table
    return tables
