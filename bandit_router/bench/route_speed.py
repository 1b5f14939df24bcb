"""What routing adds to embedding: one short prompt from text to decision."""

from __future__ import annotations

import time

import numpy as np

from bandit_router.adapters.artefacts import load_projection
from bandit_router.adapters.embedding import DEFAULT_MODEL, make_embedder, open_encoder
from bandit_router.bench.figures import Figure, median_figure
from bandit_router.bench.synthetic import synthetic_log
from bandit_router.bootstrap import make_policy
from bandit_router.features.featurizer import Featurizer
from bandit_router.replay import blurred_catalog
from bandit_router.router import Router
from bandit_router.types import Context

AT_MOST = 1.3
MODELS = 3


def route_figures(*, prompts: int = 200) -> list[Figure]:
    """Medians of ``Router.decide`` on a text and of fastembed alone on the same text, in turn.

    Every prompt is new, so no cache helps; both run the same encoder with the same threads, and
    who goes first alternates.
    """
    bare = open_encoder(DEFAULT_MODEL, None)
    table = synthetic_log(MODELS, 10)
    featurizer = Featurizer(*load_projection(), make_embedder())
    catalog = blurred_catalog(table, 0)
    router = Router(
        make_policy("bandit", catalog, dimension=featurizer.dimension),
        featurizer,
        catalog,
        salt="bench",
        quality_value_usd=lambda: 0.02,
    )

    def embed(text: str) -> None:
        next(iter(bare.embed([text])))

    def route(text: str) -> None:
        router.decide(Context(event_id=text, ts=0.0, prompt=text))

    for i in range(20):
        embed(f"warm up {i}")
        route(f"warm up {i}")
    taken = np.empty((prompts, 2))
    for i in range(prompts):
        text = f"What is the capital of country number {i}?"
        for call in (embed, route) if i % 2 else (route, embed):
            start = time.perf_counter()
            call(text)
            taken[i, int(call is route)] = time.perf_counter() - start
    return _figures(taken)


def _figures(taken: np.ndarray) -> list[Figure]:
    milliseconds = taken * 1e3
    halves = np.array_split(taken, 5)
    ratios = [float(np.median(part[:, 1]) / np.median(part[:, 0])) for part in halves]
    return [
        Figure(
            "route a short prompt over embedding it",
            float(np.median(taken[:, 1]) / np.median(taken[:, 0])),
            "x",
            low=min(ratios),
            high=max(ratios),
            at_most=AT_MOST,
            note=f"{len(taken)} new prompts, medians; spread of 5 parts",
        ),
        median_figure("embed a short prompt, fastembed alone", milliseconds[:, 0].tolist(), "ms"),
        median_figure("route a short prompt", milliseconds[:, 1].tolist(), "ms"),
    ]
