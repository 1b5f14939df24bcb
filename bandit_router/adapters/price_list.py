"""Price lists for a log's models: what every policy of a replay may know of prices beforehand.

Two forms are read. JSON: ``{"prices": {MODEL: {...}}, "arms": {SOURCE: [{"model": ...}, ...]}}``,
where an arm names a model as the log SOURCE does; ``prices`` alone will do. TOML: the
``[[models]]`` tables of a configuration file.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bandit_router.errors import CatalogError
from bandit_router.models import Catalog

_FIELDS = (
    "usd_per_1m_input",
    "usd_per_1m_output",
    "expected_cost_usd",
    "context_window",
    "price_source",
)


def read_price_list(path: Path, models: Sequence[str], source: str) -> Catalog:
    """The catalog of ``models``, in that order, with the list's prices.

    Args:
        path: a ``.toml`` or a JSON file.
        models: the log's models.
        source: the log's name; arms listed under it come first, then arms of any other log, then
            ``prices`` by the model's own name.

    Raises:
        CatalogError: the file cannot be read, or a model has no usable price in it.
    """
    entries = _entries(path, source)
    missing = [model for model in models if model not in entries]
    if missing:
        known = ", ".join(entries) or "no model"
        raise CatalogError(f"{path}: no price for model {missing[0]!r}; it lists: {known}")
    rows = [{"model": m, **{k: entries[m][k] for k in _FIELDS if k in entries[m]}} for m in models]
    try:
        return Catalog.from_builtins(rows)
    except CatalogError as error:
        raise CatalogError(f"{path}: {error}") from error


def read_whole_price_list(path: Path) -> Catalog:
    """The catalog of every model that the list names.

    Raises:
        CatalogError: the file cannot be read, or a model has no usable price in it.
    """
    return read_price_list(path, tuple(_entries(path, "")), "")


def _entries(path: Path, source: str) -> dict[str, Mapping[str, Any]]:
    """Every model named in the file with its fields; the more specific place wins."""
    content = _content(path)
    try:
        entries: dict[str, Mapping[str, Any]] = dict(content.get("prices", {}))
        arms = content.get("arms", {})
        for name in sorted(arms, key=lambda name: name == source):
            entries.update({arm["model"]: arm for arm in arms[name]})
        entries.update({model["model"]: model for model in content.get("models", [])})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CatalogError(
            f'{path}: not a price list: expected {{"prices": {{MODEL: {{...}}}}}}, optionally '
            '"arms", or [[models]] tables'
        ) from error
    if not all(isinstance(entry, Mapping) for entry in entries.values()):
        raise CatalogError(f"{path}: a model's entry is no object with prices")
    return entries


def _content(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text) if path.suffix.lower() == ".toml" else json.loads(text)
    except OSError as error:
        raise CatalogError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # not UTF-8, not TOML, not JSON
        raise CatalogError(f"{path}: not a readable price list: {error}") from error
    if not isinstance(content, dict):
        raise CatalogError(f"{path}: not a price list")
    return content
