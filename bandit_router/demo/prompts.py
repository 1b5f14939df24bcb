"""Embeddings of the demo's prompts, made ahead and kept in its folder.

They are kept in parts of 256 prompts, each written whole or not at all and named by what it was
made of, so that an interrupted demo embeds only what is missing.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from tokenize import TokenError

import numpy as np

from bandit_router.errors import InputError
from bandit_router.features.featurizer import Embedder
from bandit_router.report.document import write_whole

PART = 256


def embed_prompts(
    prompts: Sequence[str],
    embedder: Embedder,
    folder: Path,
    tick: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Embeddings of the prompts, shape (n, e), float32, n >= 1.

    Args:
        embedder: asked for parts that the folder does not have, in length-sorted batches.
        folder: where parts are kept; made when it is missing.
        tick: called with the number of prompts done since the last call.

    Raises:
        InputError: a kept part is damaged.
        StorageError: a part cannot be written.
    """
    parts = []
    for start in range(0, len(prompts), PART):
        some = prompts[start : start + PART]
        path = folder / f"{_digest(embedder.embedder_id, some)}.npy"
        if path.exists():
            parts.append(_read(path, len(some)))
        else:
            parts.append(embedder.embed_many(some))
            content = io.BytesIO()
            np.save(content, parts[-1])
            write_whole(path, content.getvalue())
        if tick is not None:
            tick(len(some))
    return np.concatenate(parts)


def _digest(embedder_id: str, prompts: Sequence[str]) -> str:
    digest = hashlib.sha256(embedder_id.encode())
    for prompt in prompts:
        text = prompt.encode("utf-8", "surrogatepass")
        digest.update(len(text).to_bytes(8, "little") + text)
    return digest.hexdigest()[:32]


def _read(path: Path, rows: int) -> np.ndarray:
    mend = "delete the file; it is made again then"
    try:
        with path.open("rb") as stream:
            part = np.lib.format.read_array(stream, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError, TokenError) as error:
        raise InputError(f"{path}: not readable as embeddings ({error}); {mend}") from error
    good = (
        part.ndim == 2
        and part.shape[0] == rows
        and part.dtype == np.float32
        and bool(np.all(np.abs(np.linalg.norm(part, axis=1) - 1.0) < 1e-3))
    )
    if not good:
        raise InputError(f"{path}: these are no embeddings of {rows} prompts; {mend}")
    return part
