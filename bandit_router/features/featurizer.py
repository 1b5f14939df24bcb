"""From a context to the features that a policy sees and the decision log keeps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from bandit_router.errors import ConfigError, InputError
from bandit_router.features.attributes import (
    ATTRIBUTE_NAMES,
    ATTRIBUTES_VERSION,
    AttributeScaling,
    raw,
)
from bandit_router.features.columns import COLUMNS_VERSION, normalise_columns
from bandit_router.features.ngrams import MAX_NGRAMS, NGRAM_BITS, NGRAMS_VERSION, ngrams
from bandit_router.features.projection import Projection
from bandit_router.types import Context, Features

FEATURIZER_VERSION = 1
"""Raised whenever the composition below changes: it is part of ``featurizer_id``."""


_LARGEST = 1e6
"""No encoder gives values near it; beyond it the products could overflow."""


class Embedder(Protocol):
    """What turns text into a sentence embedding (``adapters.embedding`` has the real one)."""

    embedder_id: str

    def embed_one(self, text: str) -> np.ndarray:
        """Embedding of any text, shape (e,), float32, of length 1."""
        ...

    def embed_many(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of many texts in their order, shape (n, e), float32."""
        ...


class Featurizer:
    """Dense components and attributes, hashed n-grams and context columns of one query.

    ``dense`` is ``components`` whitened principal components of the embedding, then the prompt
    attributes (``log_chars`` first), each clipped to [-clip, clip] and rounded through float32, so
    that JSON carries it bit-exactly. ``names`` names every dimension. The object holds no state:
    equal contexts give equal features.

    Args:
        projection: of the embedding; the shipped one comes from ``adapters.artefacts``.
        scaling: of the attributes; ditto.
        embedder: for contexts without an embedding of their own; None when all bring one.
        components: how many principal components to use, 1..``projection.available``.
        clip: bound on every dense value, > 0.

    Raises:
        InputError: ``components`` or ``clip`` out of range.
        ConfigError: the embedder is not the one whose embeddings the projection was fitted on.
    """

    featurizer_id: str
    dimension: int
    names: tuple[str, ...]

    def __init__(
        self,
        projection: Projection,
        scaling: AttributeScaling,
        embedder: Embedder | None = None,
        *,
        components: int = 16,
        clip: float = 3.0,
    ) -> None:
        if not 0.0 < clip < np.inf:
            raise InputError(f"clip must be finite and above 0, not {clip}")
        if embedder is not None and embedder.embedder_id != projection.embedder_id:
            raise ConfigError(
                f"the projection was fitted on embeddings of {projection.embedder_id!r}, the "
                f"embedder is {embedder.embedder_id!r}: fit a projection for this embedder, or "
                "use the default embedder"
            )
        self._projection = projection.first(components)
        self._scaling = scaling
        self._embedder = embedder
        self._components = components
        self._clip = clip
        pcs = tuple(f"pc_{index:02d}" for index in range(components))
        self.names = pcs + ATTRIBUTE_NAMES
        self.dimension = len(self.names)
        self.featurizer_id = self._identity()

    def _identity(self) -> str:
        """A digest of everything the features depend on."""
        scaling = hashlib.sha256(
            np.asarray(self._scaling.mean, "<f8").tobytes()
            + np.asarray(self._scaling.scale, "<f8").tobytes()
        )
        parameters = {
            "version": FEATURIZER_VERSION,
            "attributes": ATTRIBUTES_VERSION,
            "ngrams": [NGRAMS_VERSION, NGRAM_BITS, MAX_NGRAMS],
            "columns": COLUMNS_VERSION,
            "names": self.names,
            "clip": self._clip,
            "projection": self._projection.sha256,
            "scaling": scaling.hexdigest(),
            "embedder": self._projection.embedder_id,
        }
        text = json.dumps(parameters, sort_keys=True)
        return "f1-" + hashlib.sha256(text.encode()).hexdigest()[:24]

    def features(self, context: Context) -> Features:
        """Features of one context; embeds the prompt unless the context brings an embedding.

        Raises:
            InputError: the context's embedding has the wrong shape or is not finite, or there is
                neither an embedding nor an embedder.
        """
        embedding = context.embedding
        if embedding is None:
            embedding = self._need_embedder(context).embed_one(context.prompt)
        return self._compose(context, embedding)

    def features_many(self, contexts: Sequence[Context]) -> list[Features]:
        """Features of many contexts in their order, the missing embeddings made together.

        Equal to ``features`` of each, bit for bit where the embedder's two methods agree so.

        Raises:
            InputError: as ``features``; no features are given then.
        """
        missing = [i for i, context in enumerate(contexts) if context.embedding is None]
        embeddings: list[np.ndarray | None] = [context.embedding for context in contexts]
        if missing:
            embedder = self._need_embedder(contexts[missing[0]])
            made = embedder.embed_many([contexts[i].prompt for i in missing])
            for row, i in enumerate(missing):
                embeddings[i] = made[row]
        return [self._compose(c, e) for c, e in zip(contexts, embeddings, strict=True)]

    def _need_embedder(self, context: Context) -> Embedder:
        if self._embedder is None:
            raise InputError(
                f"query {context.event_id!r} has no embedding and no embedder is configured: "
                "give an embedding with the context, or configure an embedder"
            )
        return self._embedder

    def _compose(self, context: Context, embedding: np.ndarray) -> Features:
        dense = np.empty(self.dimension)
        split = self._components
        dense[:split] = self._project(context, embedding)
        dense[split:] = self._scaling(raw(context.prompt))
        np.minimum(dense, self._clip, out=dense)
        np.maximum(dense, -self._clip, out=dense)
        return Features(
            dense=dense.astype(np.float32).astype(np.float64),
            ngrams=ngrams(context.prompt),
            columns=normalise_columns(context.columns),
        )

    def _project(self, context: Context, embedding: np.ndarray) -> np.ndarray:
        size = self._projection.embedding_size
        shape = getattr(embedding, "shape", None)
        if shape != (size,) or embedding.dtype.kind != "f":
            given = f"shape {shape}, dtype {embedding.dtype}" if shape else type(embedding).__name__
            raise InputError(
                f"query {context.event_id!r}: the embedding is no float array of shape ({size},) "
                f"as {self._projection.embedder_id} gives them, but {given}"
            )
        # As a float, for the bound overflows float16. The comparison is false for NaN too.
        if not float(np.abs(embedding).max()) <= _LARGEST:
            index = int(np.flatnonzero(~(np.abs(embedding.astype(np.float64)) <= _LARGEST))[0])
            raise InputError(
                f"query {context.event_id!r}: the embedding holds {embedding[index]} at index "
                f"{index}; every value must be finite and at most {_LARGEST:g} in size"
            )
        return self._projection(embedding)
