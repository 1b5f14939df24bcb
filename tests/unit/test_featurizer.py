"""The featurizer: what it composes, its identity, its bounds, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_router.adapters.artefacts import load_projection
from bandit_router.adapters.embedding import DEFAULT_EMBEDDER_ID
from bandit_router.errors import ConfigError, InputError
from bandit_router.features import featurizer as module
from bandit_router.features.attributes import ATTRIBUTE_NAMES
from bandit_router.features.featurizer import Featurizer
from bandit_router.types import Context

PROJECTION, SCALING = load_projection()
any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=300)


class HashEmbedder:
    """A deterministic stand-in: a random direction seeded by the text; counts its calls."""

    embedder_id = DEFAULT_EMBEDDER_ID

    def __init__(self) -> None:
        self.calls: list[int] = []

    def embed_one(self, text: str) -> np.ndarray:
        self.calls.append(1)
        return embedding(len(text))

    def embed_many(self, texts: Sequence[str]) -> np.ndarray:
        self.calls.append(len(texts))
        return np.stack([embedding(len(text)) for text in texts])


def embedding(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=384)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def context(prompt: str = "Why?", **fields) -> Context:
    return Context(event_id="e1", ts=0.0, prompt=prompt, **fields)


@pytest.fixture
def featurizer() -> Featurizer:
    return Featurizer(PROJECTION, SCALING, HashEmbedder())


def assert_lawful(featurizer, features):
    assert features.dense.shape == (featurizer.dimension,)
    assert features.dense.dtype == np.float64
    assert np.abs(features.dense).max() <= 3.0  # False for NaN too
    assert np.array_equal(features.dense, features.dense.astype(np.float32))


def test_dense_is_components_then_log_chars_then_the_other_attributes(featurizer):
    assert featurizer.names[:17] == (*[f"pc_{i:02d}" for i in range(16)], "log_chars")
    assert featurizer.names[16:] == ATTRIBUTE_NAMES
    assert featurizer.dimension == len(featurizer.names) == len(set(featurizer.names))


def test_dense_holds_the_projected_embedding_and_the_standardised_length(featurizer):
    prompt, vector = "x" * 99, embedding(5)
    dense = featurizer.features(context(prompt, embedding=vector)).dense
    expected = (vector - PROJECTION.mean) @ PROJECTION.matrix[:16].T
    np.testing.assert_allclose(dense[:16], np.clip(expected, -3, 3), rtol=1e-4, atol=1e-4)
    length = (np.log(100) - SCALING.mean[0]) / SCALING.scale[0]
    assert dense[16] == pytest.approx(length, rel=1e-6)


def test_hostile_text_gives_lawful_features(featurizer, hostile_text):
    assert_lawful(featurizer, featurizer.features(context(hostile_text)))


@given(any_text)
def test_any_text_gives_lawful_deterministic_features(text):
    featurizer = Featurizer(PROJECTION, SCALING, HashEmbedder())
    first, second = (featurizer.features(context(text, columns={"k": text})) for _ in range(2))
    assert_lawful(featurizer, first)
    assert np.array_equal(first.dense, second.dense)
    assert (first.ngrams, first.columns) == (second.ngrams, second.columns)


def test_dense_survives_json_bit_exactly(featurizer):
    dense = featurizer.features(context("Explain 12 things in JSON: é?")).dense
    assert json.loads(json.dumps(dense.tolist())) == dense.tolist()
    assert msgspec.json.decode(msgspec.json.encode(dense.tolist())) == dense.tolist()


def test_many_equal_one_by_one_in_their_order(featurizer):
    contexts = [context("a" * n, columns={"n": str(n)}) for n in (30, 1, 7)]
    contexts.insert(1, context("given", embedding=embedding(99)))
    for one, many in zip(
        map(featurizer.features, contexts), featurizer.features_many(contexts), strict=True
    ):
        assert np.array_equal(one.dense, many.dense)
        assert (one.ngrams, one.columns) == (many.ngrams, many.columns)


def test_missing_embeddings_are_made_in_one_call_and_given_ones_never():
    embedder = HashEmbedder()
    featurizer = Featurizer(PROJECTION, SCALING, embedder)
    featurizer.features(context(embedding=embedding(1)))
    assert embedder.calls == []
    featurizer.features_many([context("a"), context("b", embedding=embedding(1)), context("c")])
    assert embedder.calls == [2]
    assert featurizer.features_many([]) == []


def test_context_is_left_alone_and_half_precision_is_taken(featurizer):
    given_embedding = embedding(3).astype(np.float16)
    given_embedding.setflags(write=False)
    one = context(columns={"Task": " gsm "}, embedding=given_embedding)
    assert featurizer.features(one).columns == {"task": "gsm"}
    assert one.columns == {"Task": " gsm "}


def test_the_identity_is_stable_and_independent_of_having_an_embedder(featurizer):
    again = Featurizer(*load_projection())
    assert again.featurizer_id == featurizer.featurizer_id
    assert featurizer.featurizer_id.startswith("f1-")


def test_the_identity_changes_with_every_parameter(monkeypatch):
    def identity(projection=PROJECTION, scaling=SCALING, **options):
        return Featurizer(projection, scaling, **options).featurizer_id

    replace = msgspec.structs.replace
    identities = [
        identity(),
        identity(components=15),
        identity(clip=4.0),
        identity(replace(PROJECTION, sha256="0")),
        identity(replace(PROJECTION, embedder_id="other")),
        identity(scaling=replace(SCALING, mean=SCALING.mean + 1e-12)),
        identity(scaling=replace(SCALING, scale=SCALING.scale * 2)),
    ]
    for constant in ("FEATURIZER_VERSION", "ATTRIBUTES_VERSION", "NGRAMS_VERSION", "NGRAM_BITS",
                     "MAX_NGRAMS", "COLUMNS_VERSION"):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(module, constant, getattr(module, constant) + 1)
            identities.append(identity())
    assert len(set(identities)) == len(identities)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros(383, np.float32), r"'e1'.*no float array of shape \(384,\).*\(383,\)"),
        (np.zeros((1, 384), np.float32), r"shape \(1, 384\)"),
        (np.float32(1.0), "float32"),
        ([0.0] * 384, "but list"),
        (np.zeros(384, np.int64), "dtype int64"),
        (np.zeros(384, "U1"), "dtype <U1"),
        (np.full(384, np.nan, np.float32), "'e1'.*holds nan at index 0"),
        (np.where(np.arange(384) == 7, np.inf, 0.1).astype(np.float16), "inf at index 7"),
        (np.full(384, -3e38, np.float32), "at most 1e"),
    ],
)
def test_an_unusable_embedding_is_refused_with_its_place(featurizer, bad, message):
    with pytest.raises(InputError, match=message):
        featurizer.features(context(embedding=bad))
    with pytest.raises(InputError, match=message):
        featurizer.features_many([context(embedding=bad)])


def test_without_embedding_and_embedder_it_says_so():
    with pytest.raises(InputError, match="'e1' has no embedding"):
        Featurizer(PROJECTION, SCALING).features(context())


def test_an_embedder_that_does_not_fit_the_projection_is_refused():
    embedder = HashEmbedder()
    embedder.embedder_id = "other"
    with pytest.raises(ConfigError, match="fitted on embeddings of"):
        Featurizer(PROJECTION, SCALING, embedder)


@pytest.mark.parametrize("clip", [0.0, -1.0, float("nan"), float("inf")])
def test_an_unusable_clip_is_refused(clip):
    with pytest.raises(InputError, match="clip"):
        Featurizer(PROJECTION, SCALING, clip=clip)
