"""A bounded cache of embeddings in front of an embedder, for prompts that repeat."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from bandit_router.errors import ConfigError
from bandit_router.features.featurizer import Embedder

_LONGEST_KEY = 256
"""Longer texts are kept under their digest, so that the cache does not hold whole documents."""
_ENTRY_OVERHEAD = 400
"""Bytes an entry costs beside its text and its numbers: array, string and dict slots, measured."""


class CachedEmbedder:
    """An embedder that remembers the least recently used embeddings; safe to share by threads.

    Args:
        embedder: what is asked on a miss; its errors pass through and are not remembered.
        max_entries: at most this many embeddings, >= 0; 0 switches the cache off.
        max_bytes: at most about this many bytes, keys included.

    Attributes:
        hits, misses: lookups so far.

    Embeddings it gives are read-only arrays, because the same one may be given again.
    """

    def __init__(
        self, embedder: Embedder, *, max_entries: int = 4096, max_bytes: int = 16 * 2**20
    ) -> None:
        if max_entries < 0 or max_bytes < 0:
            raise ConfigError(
                f"cache bounds must not be negative: entries {max_entries}, bytes {max_bytes}"
            )
        self._embedder = embedder
        self._max_entries, self._max_bytes = max_entries, max_bytes
        self._entries: OrderedDict[str | bytes, np.ndarray] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self.hits = self.misses = 0
        self.embedder_id = embedder.embedder_id

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """About how many bytes the entries hold."""
        return self._bytes

    def embed_one(self, text: str) -> np.ndarray:
        """Embedding of any text, shape (e,), float32, read-only."""
        key = _key(text)
        found = self._get(key)
        return self._put(key, self._embedder.embed_one(text)) if found is None else found

    def embed_many(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of many texts in their order, shape (n, e), float32; known ones are reused."""
        rows = [self._get(_key(text)) for text in texts]
        missing = [index for index, row in enumerate(rows) if row is None]
        if not missing and texts:
            return np.stack(rows)
        made = self._embedder.embed_many([texts[index] for index in missing])
        for index, row in zip(missing, made, strict=True):
            rows[index] = self._put(_key(texts[index]), row.copy())
        return np.stack(rows) if rows else made

    def _get(self, key: str | bytes) -> np.ndarray | None:
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                self.misses += 1
            else:
                self.hits += 1
                self._entries.move_to_end(key)
            return found

    def _put(self, key: str | bytes, embedding: np.ndarray) -> np.ndarray:
        embedding.setflags(write=False)
        with self._lock:
            if key not in self._entries:
                self._bytes += _cost(key, embedding)
            self._entries[key] = embedding
            while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
                self._bytes -= _cost(*self._entries.popitem(last=False))
        return embedding


def _key(text: str) -> str | bytes:
    """The text itself when short, else its 32-byte digest."""
    if len(text) <= _LONGEST_KEY:
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _cost(key: str | bytes, embedding: np.ndarray) -> int:
    """Upper bound on the bytes of one entry: a character takes at most 4."""
    return 4 * len(key) + embedding.nbytes + _ENTRY_OVERHEAD
