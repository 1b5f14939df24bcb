"""Elements of the page. Text is escaped when the tree is written, so no text can become markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element

_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")

Child = Element | str


def clean(text: str) -> str:
    """Text without what HTML cannot carry (control characters, lone surrogates)."""
    return _FORBIDDEN.sub("\ufffd", text)


def el(tag: str, /, *children: Child, **attributes: str | float) -> Element:
    """An element. ``cls`` stands for ``class``; ``_`` in a name for ``-``."""
    element = Element(tag)
    for name, value in attributes.items():
        key = "class" if name == "cls" else name.replace("_", "-")
        element.set(key, number(value) if isinstance(value, int | float) else clean(value))
    for child in children:
        add(element, child)
    return element


def add(parent: Element, child: Child) -> None:
    """Append an element or text."""
    if isinstance(child, Element):
        parent.append(child)
    elif len(parent):
        parent[-1].tail = (parent[-1].tail or "") + clean(child)
    else:
        parent.text = (parent.text or "") + clean(child)


def number(value: float) -> str:
    """A coordinate: at most two decimals, no trailing zeros."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> Element:
    """A table whose first column names the row; the others are numbers, aligned right."""
    head = el("tr", *(el("th", header, scope="col") for header in headers))
    body = (
        el("tr", el("th", row[0], scope="row"), *(el("td", cell) for cell in row[1:]))
        for row in rows
    )
    parts = [el("caption", caption)] if caption else []
    grid = el("table", *parts, el("thead", head), el("tbody", *body))
    return el("div", grid, cls="scroll")
