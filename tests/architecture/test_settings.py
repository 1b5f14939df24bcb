"""Every setting is read by something: a key that changes nothing misleads whoever sets it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from bandit_router.config import Section, Settings

PACKAGE = Path(__file__).resolve().parents[2] / "bandit_router"


def settings_keys() -> list[tuple[str, str]]:
    """(section, key) of every key whose section is a class of its own."""
    return [
        (name, key)
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        for key in field.annotation.model_fields
    ]


def attributes_read() -> set[str]:
    """Every attribute name that the package reads outside the module that declares settings."""
    return {
        node.attr
        for path in PACKAGE.rglob("*.py")
        if path.name != "config.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


@pytest.mark.parametrize("key", settings_keys(), ids=".".join)
def test_every_setting_is_read(key: tuple[str, str]):
    assert key[1] in attributes_read()


@pytest.mark.parametrize("name", ["catalog", "join_rules"])
def test_every_derived_value_is_read(name: str):
    assert name in attributes_read()
