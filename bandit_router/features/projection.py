"""Few whitened principal components of a sentence embedding.

A contextual bandit that starts cold learns from hundreds of rewards, not from millions, so the
embedding (384 numbers) is brought down to the directions in which prompts of many sources differ
most, each scaled to variance 1. Fitting needs no scores, only prompts.
"""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np

from bandit_router.errors import InputError


class Projection(msgspec.Struct, frozen=True, eq=False):
    """An affine map from embeddings to whitened components.

    Attributes:
        mean: shape (e,), float32, subtracted from the embedding.
        matrix: shape (d, e), float32, one whitened direction per row, most variance first.
        sha256: hex digest that identifies these numbers (of the artefact file, when from a file).
        embedder_id: the encoder whose embeddings it was fitted on.
    """

    mean: np.ndarray
    matrix: np.ndarray
    sha256: str
    embedder_id: str

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2 or self.mean.shape != self.matrix.shape[1:]:
            raise InputError(
                f"a projection needs a mean (e,) and a matrix (d, e), not {self.mean.shape} "
                f"and {self.matrix.shape}"
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.matrix).all()):
            raise InputError("a projection must hold finite numbers only")

    @property
    def embedding_size(self) -> int:
        """e, the length of the embeddings it takes."""
        return self.mean.shape[0]

    @property
    def available(self) -> int:
        """d, how many components it can give."""
        return self.matrix.shape[0]

    def first(self, components: int) -> Projection:
        """The same projection with only its first ``components`` components.

        Raises:
            InputError: ``components`` is not in 1..d.
        """
        if not 1 <= components <= self.available:
            raise InputError(
                f"components must be in 1..{self.available} for this projection, not {components}"
            )
        matrix = np.ascontiguousarray(self.matrix[:components])
        return Projection(self.mean, matrix, self.sha256, self.embedder_id)

    def __call__(self, embedding: np.ndarray) -> np.ndarray:
        """Components of one embedding (e,), as float32 (d,); of many (n, e), as (n, d)."""
        return (embedding - self.mean) @ self.matrix.T


def fit_projection(
    embeddings: np.ndarray,
    weights: np.ndarray,
    components: int,
    *,
    embedder_id: str,
    shrinkage: float = 1e-4,
) -> Projection:
    """Weighted principal components, whitened (Hotelling 1933; Jolliffe 2002, section 2.3).

    Args:
        embeddings: shape (n, e).
        weights: shape (n,), non-negative: give every source the same total weight, so that the
            largest log does not decide the directions alone.
        components: how many to keep, 1..e.
        shrinkage: added to every eigenvalue before whitening, so that a direction with next to no
            variance is not blown up.

    Returns:
        A projection under which the weighted sample has mean 0 and variance just under 1 in every
        component, with a digest of its own numbers. Signs are fixed: the entry of largest magnitude
        in each row is positive.

    Raises:
        InputError: fewer than 2 embeddings, or ``components`` out of range.
    """
    n, size = embeddings.shape
    if n < 2 or not 1 <= components <= size:
        raise InputError(
            f"cannot fit {components} components to {n} embeddings of length {size}: "
            "give at least 2 embeddings and 1 <= components <= length"
        )
    share = np.asarray(weights, np.float64) / np.sum(weights, dtype=np.float64)
    data = embeddings.astype(np.float64)
    mean = share @ data
    centred = data - mean
    values, vectors = np.linalg.eigh((centred * share[:, None]).T @ centred)
    rows = vectors[:, ::-1][:, :components].T
    pivot = np.abs(rows).argmax(axis=1)
    rows = rows * np.sign(rows[np.arange(components), pivot])[:, None]
    top = np.maximum(values[::-1][:components], 0.0)
    matrix = (rows / np.sqrt(top + shrinkage)[:, None]).astype(np.float32)
    mean = mean.astype(np.float32)
    digest = hashlib.sha256(mean.tobytes() + matrix.tobytes()).hexdigest()
    return Projection(mean, matrix, digest, embedder_id)
