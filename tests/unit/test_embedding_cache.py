"""The cache of embeddings: bounded by count and by bytes, least recently used first out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bandit_router.adapters.embedding_cache import CachedEmbedder
from bandit_router.errors import ConfigError, DependencyError


class Counting:
    embedder_id = "counting"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed_one(self, text):
        if text == "fails":
            raise DependencyError("no")
        self.asked.append(text)
        return np.full(4, len(text), np.float32)

    def embed_many(self, texts):
        return np.array([self.embed_one(text) for text in texts]).reshape(len(texts), 4)


def test_a_repeated_prompt_is_embedded_once():
    inner = Counting()
    cache = CachedEmbedder(inner)
    first, second = cache.embed_one("ab"), cache.embed_one("ab")
    assert first is second
    assert (inner.asked, cache.hits, cache.misses) == (["ab"], 1, 1)
    assert cache.embedder_id == "counting"


def test_many_ask_only_for_what_is_missing_and_keep_the_order():
    inner = Counting()
    cache = CachedEmbedder(inner)
    cache.embed_one("bb")
    rows = cache.embed_many(["a", "bb", "ccc"])
    np.testing.assert_array_equal(rows[:, 0], [1, 2, 3])
    assert inner.asked == ["bb", "a", "ccc"]
    np.testing.assert_array_equal(cache.embed_many(["ccc", "a"])[:, 0], [3, 1])
    assert cache.embed_many([]).shape == (0, 4)


def test_entries_are_bounded_and_the_least_recently_used_goes_first():
    inner = Counting()
    cache = CachedEmbedder(inner, max_entries=2)
    for text in ("a", "bb", "a", "ccc", "a", "bb"):
        cache.embed_one(text)
    assert inner.asked == ["a", "bb", "ccc", "bb"]
    assert len(cache) == 2


def test_bytes_are_bounded_whatever_the_prompts():
    cache = CachedEmbedder(Counting(), max_entries=10_000, max_bytes=20_000)
    for n in range(500):
        cache.embed_one(f"{n:03d}" + "漢" * (n % 2000))
        assert cache.nbytes <= 20_000
    assert 10 <= len(cache) < 100
    cache.embed_one("x" * 10_000_000)
    assert cache.nbytes <= 20_000


def test_long_prompts_are_told_apart_and_lone_surrogates_are_keys():
    inner = Counting()
    cache = CachedEmbedder(inner)
    for text in ("x" * 999 + "a", "x" * 999 + "b", "\ud800" * 300, "\ud800"):
        cache.embed_one(text)
    assert len(inner.asked) == len(cache) == 4


def test_off_means_off():
    inner = Counting()
    cache = CachedEmbedder(inner, max_entries=0)
    cache.embed_one("a")
    cache.embed_one("a")
    assert (len(inner.asked), len(cache), cache.nbytes) == (2, 0, 0)


def test_what_it_gives_cannot_be_written_to():
    cache = CachedEmbedder(Counting())
    with pytest.raises(ValueError, match="read-only"):
        cache.embed_one("a")[0] = 1.0


def test_an_error_passes_through_and_is_not_remembered():
    cache = CachedEmbedder(Counting())
    with pytest.raises(DependencyError):
        cache.embed_one("fails")
    assert len(cache) == 0


def test_threads_that_share_it_keep_its_bounds_and_its_answers():
    cache = CachedEmbedder(Counting(), max_entries=5)
    texts = ["t" * (1 + n % 9) for n in range(900)]
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(cache.embed_one, texts))
    assert [row[0] for row in rows] == [len(text) for text in texts]
    assert len(cache) == 5
    assert cache.hits + cache.misses == 900


@pytest.mark.parametrize("bounds", [{"max_entries": -1}, {"max_bytes": -1}])
def test_negative_bounds_are_refused(bounds):
    with pytest.raises(ConfigError, match="negative"):
        CachedEmbedder(Counting(), **bounds)
