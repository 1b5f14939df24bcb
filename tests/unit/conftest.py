"""What several unit tests share: a table of texts that break naive code."""

from __future__ import annotations

import pytest

HOSTILE_TEXTS = {
    "empty": "",
    "blank": " \t\r\n \u00a0\u2003",
    "nul": "a\0b\0",
    "controls": "".join(map(chr, range(32))) + "\x7f\x9f",
    "lone_surrogates": "\ud800 text \udfff",
    "right_to_left": "\u202eمرحبا بالعالم\u202c שלום",
    "han": "请用三句话解释量子纠缠。",
    "thai": "อธิบายการพันกันของควอนตัม",
    "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈" * 3,
    "combining": "Z̷̢̛͓a̸͙͐l̶̯͝g̴̛̗o̶" * 20,
    "case_grows": "İ" * 50 + "ß" * 50 + "ŉ" * 50,
    "line_separators": "a\u2028b\u2029c\x85d\x0b",
    "vowpal_syntax": "|n a:1 b:nan\n1 2 'tag | x:inf\n\n",
    "json_and_html": '{"a": [1, "</script>"]} <!-- ${x} {{y}} %s %(z)s',
    "one_long_word": "a" * 1_000_000,
    "megabyte_of_words": "lorem ipsum 12 " * 66_667,
    "megabyte_of_han": "漢字" * 500_000,
    "megabyte_of_surrogates": "\udcff" * 1_000_000,
    "megabyte_of_spaces": " " * 1_000_000,
    "hundred_scripts": "".join(chr(point) for point in range(0xA0, 0x1F000, 137)),
}


@pytest.fixture(params=sorted(HOSTILE_TEXTS))
def hostile_text(request: pytest.FixtureRequest) -> str:
    """One text of the table after the other."""
    return HOSTILE_TEXTS[request.param]
