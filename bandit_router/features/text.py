"""The bounded view of a text that every cheap feature is computed from.

Attributes and n-grams must cost the same for a one-megabyte prompt as for a long one, so they look
at the first and the last characters only. Instructions stand at either end of a prompt; the middle
of a very long one is usually pasted material.
"""

from __future__ import annotations


def window(text: str, head: int, tail: int) -> str:
    """The first ``head`` and last ``tail`` characters, a newline between; short texts unchanged.

    Args:
        text: any text.
        head: characters kept from the start, >= 0.
        tail: characters kept from the end, >= 1.

    Returns:
        At most ``head + tail + 1`` characters; a pure function of the arguments.
    """
    if len(text) <= head + tail:
        return text
    return text[:head] + "\n" + text[-tail:]


def without_surrogates(text: str) -> str:
    """The text with every lone surrogate replaced by ``?``, so that it encodes as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
