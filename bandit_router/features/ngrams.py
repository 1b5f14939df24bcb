"""Hashed word n-grams of a prompt: sparse, high-cardinality features for a linear expert.

Lower-cased word unigrams and bigrams over a bounded window, hashed with CRC-32 into 2**18 buckets
(the hashing trick, Weinberger et al. 2009). Digits are folded to 0, so that "16 eggs" and "12 eggs"
share their features. Scripts written without spaces (Han, kana, Hangul, Thai) give characters
instead of words.
"""

from __future__ import annotations

import re
from itertools import pairwise
from zlib import crc32

from bandit_router.features.text import window

NGRAMS_VERSION = 1
"""Raised whenever a definition below changes: it is part of the featurizer's identity."""

NGRAM_BITS = 18
MAX_NGRAMS = 64
_MASK = (1 << NGRAM_BITS) - 1
_HEAD, _TAIL = 768, 256
_WORD_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyz'") | frozenset(range(128, 256))


def _fold(byte: int) -> int:
    """Keep letters and bytes of other scripts, fold digits to 0, make the rest a space."""
    if byte in _WORD_BYTES:
        return byte
    return ord("0") if chr(byte).isdigit() else ord(" ")


_TABLE = bytes(_fold(byte) for byte in range(256))
_UNSPACED = re.compile("([\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])")


def words(text: str) -> list[bytes]:
    """The folded words of the window of any text, in order, as UTF-8 bytes."""
    view = window(text, _HEAD, _TAIL).lower()
    if not view.isascii():
        view = _UNSPACED.sub(r" \1 ", view)
    return view.encode("utf-8", "replace").translate(_TABLE).split()


def ngrams(text: str) -> tuple[int, ...]:
    """Hashed unigrams and bigrams: distinct, ascending, each in [0, 2**18), at most 64.

    Of more than 64, those with the smallest 32-bit hash are kept: a choice that is deterministic,
    favours no part of the prompt, and tends to keep the same n-gram in every prompt that has it
    (bottom-k sampling, Cohen and Kaplan 2007). The order is decided by the upper bits of the hash,
    the bucket by its lower 18.
    """
    hashes = [crc32(word) for word in words(text)]
    grams = set(hashes)
    # An odd multiplier keeps "a b" and "b a" apart and spreads the sum over all 32 bits.
    grams.update([(a * 0x9E3779B1 + b) & 0xFFFFFFFF for a, b in pairwise(hashes)])
    kept = sorted(grams)[:MAX_NGRAMS] if len(grams) > MAX_NGRAMS else grams
    return tuple(sorted({gram & _MASK for gram in kept}))
