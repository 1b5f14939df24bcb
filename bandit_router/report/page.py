"""``report.html``: one file that opens anywhere, alone.

A Content-Security-Policy in the page forbids every request, so that nothing in a log can make the
page load something. The tables beside the charts hold the same numbers; the one small script shows
a mark's values on hover, tap or focus, and the page is complete without it.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from importlib import resources
from xml.etree.ElementTree import Element, tostring

from bandit_router.report.markup import Child, el, table


@dataclass(frozen=True)
class Figure:
    """A chart with its caption and the table that says the same.

    Attributes:
        name: short, ``[a-z0-9-]``; the element's ``data-figure``.
        legend: (CSS class, text) of each colour.
    """

    name: str
    title: str
    note: str
    chart: Element
    headers: tuple[str, ...]
    rows: list[tuple[str, ...]]
    legend: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph, figures; ``folded`` figures are behind a click."""

    title: str
    note: str
    figures: tuple[Figure, ...]
    folded: tuple[Figure, ...] = ()
    folded_title: str = ""


@dataclass(frozen=True)
class Page:
    """A report as a value: whoever has more to show appends sections.

    Attributes:
        lead: paragraphs under the title.
        tables: (caption, headers, rows) shown before the sections.
    """

    title: str
    lead: tuple[str, ...]
    tables: tuple[tuple[str, tuple[str, ...], list[tuple[str, ...]]], ...]
    sections: tuple[Section, ...]


def render(page: Page) -> str:
    """The page as HTML text."""
    style, script = _asset("report.css"), _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", page.title),
        el("style", style),
    )
    body = el(
        "body",
        el(
            "main",
            el("h1", page.title),
            *(el("p", text) for text in page.lead),
            *(table(headers, rows, caption) for caption, headers, rows in page.tables),
            *(_section(section) for section in page.sections),
        ),
        el("div", id="tip", role="status", hidden="hidden"),
        el("script", script),
    )
    document = tostring(el("html", head, body, lang="en"), encoding="unicode", method="html")
    return f"<!doctype html>\n{document}\n"


def _section(section: Section) -> Element:
    children: list[Child] = [el("h2", section.title), el("p", section.note)]
    alone = " alone" if len(section.figures) == 1 else ""
    children.append(el("div", *map(_figure, section.figures), cls=f"figures{alone}"))
    if section.folded:
        folded = el("div", *map(_figure, section.folded), cls="figures")
        children.append(el("details", el("summary", section.folded_title), folded))
    return el("section", *children)


def _figure(figure: Figure) -> Element:
    legend = [
        el("li", el("span", cls=f"swatch {cls}"), text, cls="key") for cls, text in figure.legend
    ]
    return el(
        "figure",
        el("h3", figure.title),
        el("div", figure.chart, cls="chart"),
        *([el("ul", *legend, cls="legend")] if legend else []),
        el("figcaption", figure.note),
        el("details", el("summary", "As a table"), table(figure.headers, figure.rows)),
        data_figure=figure.name,
    )


def _asset(name: str) -> str:
    """A text file of this package. It is ASCII without ``</``, so it cannot end its element."""
    return (resources.files("bandit_router.report") / name).read_text(encoding="ascii")
