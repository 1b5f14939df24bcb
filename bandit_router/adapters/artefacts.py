"""Reads the artefacts that ship with the package, and refuses damaged ones."""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import cache
from importlib import resources

import numpy as np

from bandit_router.errors import DependencyError
from bandit_router.features.attributes import ATTRIBUTE_NAMES, AttributeScaling
from bandit_router.features.projection import Projection

PROJECTION_SHA256 = "ea14530460db312a50315563115070d48e13f0fd5e24300b3c530a884bab3b4a"
"""Of ``bandit_router/data/projection.npz``; printed by ``simulations/projection/fit.py``."""


@cache
def load_projection() -> tuple[Projection, AttributeScaling]:
    """The shipped projection and attribute scaling (``simulations/projection`` made them).

    Raises:
        DependencyError: the file is missing or is not the one this version was released with.
    """
    path = resources.files("bandit_router") / "data" / "projection.npz"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DependencyError(f"cannot read the shipped file {path}: {error}; reinstall") from error
    return parse_projection(content, PROJECTION_SHA256, where=str(path))


def parse_projection(
    content: bytes, sha256: str, *, where: str
) -> tuple[Projection, AttributeScaling]:
    """Projection and scaling from the bytes of an artefact, its digest checked first.

    Args:
        content: the whole file.
        sha256: the hex digest it must have.
        where: the file's name, for messages.

    Raises:
        DependencyError: another digest, an unreadable archive, or attributes of another version.
    """
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise DependencyError(
            f"{where} is damaged: sha256 {digest[:16]}..., expected {sha256[:16]}...; "
            "reinstall the package"
        )
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            names = tuple(str(name) for name in arrays["attribute_names"])
            if names != ATTRIBUTE_NAMES:
                raise DependencyError(f"{where} scales the attributes {names}: make it anew")
            projection = Projection(
                arrays["mean"], arrays["matrix"], digest, str(arrays["embedder_id"])
            )
            return projection, AttributeScaling(arrays["attribute_mean"], arrays["attribute_scale"])
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DependencyError(f"{where} is no projection artefact: {error}") from error
