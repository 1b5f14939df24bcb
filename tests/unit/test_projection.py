"""The whitened projection: its algebra, and the shipped artefact that holds it."""

from __future__ import annotations

import hashlib
import io
from importlib import resources

import numpy as np
import pytest

from bandit_router.adapters.artefacts import PROJECTION_SHA256, load_projection, parse_projection
from bandit_router.adapters.embedding import DEFAULT_EMBEDDER_ID
from bandit_router.errors import DependencyError, InputError
from bandit_router.features.attributes import ATTRIBUTE_NAMES
from bandit_router.features.projection import Projection, fit_projection


def sample(n: int = 2000, e: int = 6) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(n, e)) * np.arange(e, 0, -1) + 5.0).astype(np.float32)


def shipped() -> bytes:
    return (resources.files("bandit_router") / "data" / "projection.npz").read_bytes()


def test_fitted_components_are_centred_white_and_ordered():
    data, weights = sample(), np.linspace(0.5, 2.0, 2000)
    projection = fit_projection(data, weights, 4, embedder_id="x")
    out, share = projection(data).astype(np.float64), weights / weights.sum()
    np.testing.assert_allclose(share @ out, 0.0, atol=1e-5)
    np.testing.assert_allclose((out * share[:, None]).T @ out, np.eye(4), atol=1e-3)
    row_norms = np.linalg.norm(projection.matrix, axis=1)  # 1 / standard deviation
    assert (np.diff(row_norms) > 0).all()


def test_a_weight_of_two_is_the_row_twice():
    data = sample(300)
    weights = np.where(np.arange(300) < 100, 2.0, 1.0)
    weighted = fit_projection(data, weights, 3, embedder_id="x")
    repeated = fit_projection(np.concatenate([data[:100], data]), np.ones(400), 3, embedder_id="x")
    np.testing.assert_allclose(weighted.matrix, repeated.matrix, rtol=1e-4)


def test_signs_do_not_depend_on_the_order_of_rows():
    data = sample(500)
    one = fit_projection(data, np.ones(500), 6, embedder_id="x")
    other = fit_projection(data[::-1], np.ones(500), 6, embedder_id="x")
    np.testing.assert_allclose(one.matrix, other.matrix, atol=1e-5)
    pivots = np.abs(one.matrix).argmax(axis=1)
    assert (one.matrix[np.arange(6), pivots] > 0).all()


def test_a_fitted_projection_is_identified_by_its_numbers():
    data, weights = sample(500), np.ones(500)
    digests = [
        fit_projection(data[start:], weights[start:], 4, embedder_id="x").sha256
        for start in (0, 0, 1)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_directions_without_variance_stay_finite():
    projection = fit_projection(np.ones((10, 4)), np.ones(10), 4, embedder_id="x")
    assert np.isfinite(projection.matrix).all()
    assert np.abs(projection.matrix).max() <= 101.0  # 1 / sqrt(shrinkage), rounded up


@pytest.mark.parametrize(("rows", "components"), [(1, 2), (5, 0), (5, 7)])
def test_what_cannot_be_fitted_is_refused(rows, components):
    with pytest.raises(InputError, match="cannot fit"):
        fit_projection(sample(rows), np.ones(rows), components, embedder_id="x")


@pytest.mark.parametrize("components", [0, 33, -1])
def test_more_components_than_there_are_is_refused(components):
    with pytest.raises(InputError, match=r"1\.\.32"):
        load_projection()[0].first(components)


@pytest.mark.parametrize(
    ("mean", "matrix"),
    [
        (np.zeros(3), np.zeros((2, 4))),
        (np.zeros(3), np.zeros(3)),
        (np.array([0.0, np.nan]), np.zeros((1, 2))),
    ],
)
def test_a_projection_of_the_wrong_shape_or_not_finite_is_refused(mean, matrix):
    with pytest.raises(InputError, match="projection"):
        Projection(mean, matrix, "", "x")


def test_the_shipped_artefact_fits_the_default_encoder_and_the_attributes():
    projection, scaling = load_projection()
    assert (projection.available, projection.embedding_size) == (32, 384)
    assert projection.embedder_id == DEFAULT_EMBEDDER_ID
    assert projection.sha256 == PROJECTION_SHA256
    assert scaling.mean.shape == (len(ATTRIBUTE_NAMES),)


def test_first_components_are_a_prefix():
    projection, _ = load_projection()
    embedding = np.random.default_rng(1).normal(size=384).astype(np.float32)
    np.testing.assert_allclose(
        projection.first(16)(embedding), projection(embedding)[:16], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("position", [0, 100, 30_000, -1])
def test_one_flipped_byte_anywhere_is_found(position):
    content = bytearray(shipped())
    content[position] ^= 1
    with pytest.raises(DependencyError, match=r"p\.npz is damaged.*reinstall"):
        parse_projection(bytes(content), PROJECTION_SHA256, where="p.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\x93NUMPY"])
def test_bytes_that_are_no_archive_are_refused_even_with_the_right_digest(content):
    with pytest.raises(DependencyError, match="no projection artefact"):
        parse_projection(content, hashlib.sha256(content).hexdigest(), where="p.npz")


def test_an_artefact_of_other_attributes_or_with_an_array_missing_is_refused():
    with np.load(io.BytesIO(shipped())) as arrays:
        held = dict(arrays)
    for change, message in (
        ({**held, "attribute_names": np.array(["a"])}, "anew"),
        ({k: v for k, v in held.items() if k != "mean"}, "no projection artefact"),
        ({**held, "mean": np.full(384, np.nan)}, "no projection artefact"),
        ({**held, "mean": np.array([{}], dtype=object)}, "no projection artefact"),
    ):
        buffer = io.BytesIO()
        np.savez(buffer, **change)
        content = buffer.getvalue()
        with pytest.raises(DependencyError, match=message):
            parse_projection(content, hashlib.sha256(content).hexdigest(), where="p.npz")
