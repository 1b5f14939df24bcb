"""Makes ``bandit_router/data/projection.npz``: projection and attribute scaling, from prompts only.

    python -m simulations.projection.fit ../shared/data --out bandit_router/data/projection.npz

It uses prompts and embeddings, never a score or a cost. Sources: folds 0 and 1 (the tuning folds)
of the three logs in the folder given, and the ``val`` prompts of package ``paretobandit``, which
are embedded here. Every source has the same total weight, so that the largest log does not decide
the directions alone. The same inputs give the same bytes on one machine; the linear algebra library
of another may differ in the last bits, which is why the artefact ships and its sha256 is pinned in
``bandit_router/adapters/artefacts.py``.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np

from bandit_router.adapters.embedding import FastEmbedder
from bandit_router.adapters.tables import read_table
from bandit_router.features.attributes import ATTRIBUTE_NAMES, fit_scaling, raw
from bandit_router.features.projection import fit_projection

LOGS = ("zeroeval", "routellm_gsm8k", "alpaca_eval1")
TUNING_FOLDS = (0, 1)
COMPONENTS = 32

Source = tuple[list[str], np.ndarray]


def log_source(folder: Path, name: str) -> Source:
    """Prompts and embeddings (n, 384) of one log's tuning folds, in file order."""
    table = read_table(folder / f"{name}.parquet", folds=TUNING_FOLDS)
    if table.embeddings is None:
        raise SystemExit(f"{table.path} has no embeddings beside it ({name}.emb.npy)")
    return list(table.prompts), table.embeddings


def pareto_source(embedder: FastEmbedder) -> Source:
    """Prompts of paretobandit's ``val`` split (its learning split), embedded here."""
    spec = importlib.util.find_spec("pareto_bandit")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("package paretobandit is not installed: pip install paretobandit")
    path = Path(spec.submodule_search_locations[0]) / "data" / "examples" / "val.jsonl"
    with path.open(encoding="utf-8") as lines:  # not splitlines: prompts hold U+2028
        prompts = [json.loads(line)["prompt"] for line in lines]
    return prompts, embedder.embed_many(prompts)


def fit(sources: list[Source], embedder_id: str) -> dict[str, np.ndarray]:
    """The artefact's arrays, from sources of equal total weight."""
    weights = np.concatenate([np.full(len(prompts), 1.0 / len(prompts)) for prompts, _ in sources])
    embeddings = np.concatenate([rows for _, rows in sources])
    attributes = np.array([raw(prompt) for prompts, _ in sources for prompt in prompts])
    projection = fit_projection(embeddings, weights, COMPONENTS, embedder_id=embedder_id)
    scaling = fit_scaling(attributes, weights)
    return {
        "mean": projection.mean,
        "matrix": projection.matrix,
        "embedder_id": np.array(embedder_id),
        "attribute_names": np.array(ATTRIBUTE_NAMES),
        "attribute_mean": scaling.mean,
        "attribute_scale": scaling.scale,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the three logs")
    parser.add_argument("--out", type=Path, required=True, help="the artefact to write (.npz)")
    arguments = parser.parse_args()
    embedder = FastEmbedder()
    sources = [log_source(arguments.data, name) for name in LOGS] + [pareto_source(embedder)]
    np.savez(arguments.out, **fit(sources, embedder.embedder_id))
    digest = hashlib.sha256(arguments.out.read_bytes()).hexdigest()
    counts = ", ".join(str(len(prompts)) for prompts, _ in sources)
    print(f"{arguments.out}: fitted on {counts} prompts\nPROJECTION_SHA256 = {digest!r}")


if __name__ == "__main__":
    main()
