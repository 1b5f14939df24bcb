r"""The snapshot container: deterministic bytes out, verified content in.

Layout, integers big-endian::

    8 bytes   magic "BRSNAP1\n"
    4 bytes   length m of the manifest
    m bytes   manifest, JSON
    32 bytes  HMAC-SHA256 of everything before; zeros when no key is configured
    rest      payload: the learner's state, then the joiner's

The manifest holds the payload's sizes and sha256, so the HMAC covers everything. No wall clock goes
in: the same log gives the same bytes, on any machine, at any time. :func:`unpack` looks at sizes,
structure, HMAC and sha256, in that order, and only then hands out a single byte of the payload.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import struct
from collections.abc import Collection, Mapping

import msgspec

from bandit_router.errors import SnapshotError
from bandit_router.joiner import JoinRules
from bandit_router.models import Catalog, ModelSpec

SCHEMA_VERSION = 1
MAGIC = b"BRSNAP1\n"
MAX_BYTES = 512 * 1024 * 1024
MAX_MANIFEST_BYTES = 4 * 1024 * 1024

_LENGTH = struct.Struct(">I")
_SIGNATURE_BYTES = 32
_UNSIGNED = bytes(_SIGNATURE_BYTES)
_OPTION_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MAX_OPTIONS = 64
_SOURCE_NAME = re.compile(r"[a-z][a-z_]{0,31}")
_MAX_SOURCES = 16
_MAX_OPTION_CHARS = 256

Scalar = str | bool | int | float | None


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an empty learner and joiner are made from. With the log it gives every later state.

    Attributes:
        app: owner of the policy.
        policy: name in the policy registry.
        options: further arguments of that policy, by name; scalars only.
        seed: of the policy's own randomness.
        dimension: length of ``Features.dense``.
        featurizer_id: which featurizer made the features.
        catalog: the models before the first row.
        quality_value_usd: where the budget pacer starts, USD, > 0.
        target_cost_usd: its target, USD per query, or None for a constant quality value.
        rules: how events are joined.
    """

    app: str
    policy: str
    options: dict[str, Scalar] = {}
    seed: int = 0
    dimension: int
    featurizer_id: str
    catalog: tuple[ModelSpec, ...]
    quality_value_usd: float
    target_cost_usd: float | None = None
    rules: JoinRules = JoinRules()

    def __post_init__(self) -> None:
        # Equal recipes have equal bytes, whatever order a configuration file had, and whether it
        # said 3 or 3.0: what is decoded again must encode to the same bytes.
        settle = msgspec.structs.force_setattr
        settle(self, "options", dict(sorted(self.options.items())))
        settle(self, "quality_value_usd", float(self.quality_value_usd))
        if self.target_cost_usd is not None:
            settle(self, "target_cost_usd", float(self.target_cost_usd))
        settle(self, "catalog", tuple(Catalog.from_builtins(Catalog(self.catalog).to_builtins())))

    def differences(self, other: Recipe) -> list[str]:
        """The names of the fields in which the two differ."""
        return [f for f in self.__struct_fields__ if getattr(self, f) != getattr(other, f)]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a snapshot is of.

    Attributes:
        learn_seq: number of the last training row in it.
        created_ts: stream time at which it was taken, seconds since the epoch; 0 before any event.
        parent: id of the scheduled snapshot before; "" for the first.
        scheduled: whether it was taken by the schedule, so that later ones name it as parent.
        offsets: last offset seen, per source: ``log``, the store's own, and with Kafka one for
            each topic that is read.
        recipe: what the state grew from.
        catalog: the models now.
        sizes: bytes of each part of the payload, in order.
        sha256: of the payload, hexadecimal.
    """

    schema: int = SCHEMA_VERSION
    learn_seq: int
    created_ts: float
    parent: str
    scheduled: bool = True
    offsets: dict[str, int]
    recipe: Recipe
    catalog: tuple[ModelSpec, ...]
    sizes: dict[str, int]
    sha256: str


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A verified snapshot.

    Attributes:
        id: ``learn_seq`` in twelve digits, a dash, and 12 hexadecimal digits of the sha256 of the
            manifest, which itself holds the payload's.
        data: the whole container.
    """

    id: str
    manifest: Manifest
    learner: bytes
    joiner: bytes
    data: bytes


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Manifest)


def pack(
    *,
    learn_seq: int,
    created_ts: float,
    parent: str,
    offsets: Mapping[str, int],
    recipe: Recipe,
    catalog: Collection[ModelSpec],
    learner: bytes,
    joiner: bytes,
    scheduled: bool = True,
    key: bytes | None = None,
) -> Snapshot:
    """Put a state into a container, signed when there is a ``key``.

    Raises:
        SnapshotError: it would not pass :func:`unpack` (too large, an option that is not allowed).
    """
    payload = learner + joiner
    manifest = Manifest(
        learn_seq=learn_seq,
        created_ts=created_ts,
        parent=parent,
        scheduled=scheduled,
        offsets=dict(offsets),
        recipe=recipe,
        catalog=tuple(catalog),
        sizes={"learner": len(learner), "joiner": len(joiner)},
        sha256=hashlib.sha256(payload).hexdigest(),
    )
    _check_manifest(manifest, None)
    body = _encoder.encode(manifest)
    head = MAGIC + _LENGTH.pack(len(body)) + body
    data = head + _signature(head, key) + payload
    if len(body) > MAX_MANIFEST_BYTES or len(data) > MAX_BYTES:
        raise SnapshotError(f"a snapshot of {len(data)} bytes is more than the {MAX_BYTES} allowed")
    return Snapshot(
        id=_identity(learn_seq, body), manifest=manifest, learner=learner, joiner=joiner, data=data
    )


def unpack(
    data: bytes,
    *,
    key: bytes | None = None,
    max_bytes: int = MAX_BYTES,
    allowed: Mapping[str, Collection[str]] | None = None,
) -> Snapshot:
    """Verify a container and take it apart.

    Args:
        key: the HMAC key; with one, an unsigned or differently signed snapshot is refused.
        max_bytes: refuse larger ones.
        allowed: policy name to the option names it may carry; None checks their form alone.

    Raises:
        SnapshotError: anything at all is wrong with it.
    """
    if len(data) > max_bytes:
        raise SnapshotError(
            f"{len(data)} bytes are more than the {max_bytes} allowed", reason="size"
        )
    start = len(MAGIC) + _LENGTH.size
    if not data.startswith(MAGIC):
        cut = "truncated" if MAGIC.startswith(data) else "damaged"
        raise SnapshotError(
            "this is no snapshot: it does not begin with the right bytes", reason=cut
        )
    if len(data) < start:
        raise SnapshotError("truncated before its manifest", reason="truncated")
    (length,) = _LENGTH.unpack_from(data, len(MAGIC))
    end = start + length
    if length > MAX_MANIFEST_BYTES or len(data) < end + _SIGNATURE_BYTES:
        raise SnapshotError(
            f"truncated, or no snapshot: the manifest claims {length} bytes", reason="truncated"
        )
    _check_signature(data[:end], data[end : end + _SIGNATURE_BYTES], key)
    manifest = _decode_manifest(data[start:end])
    _check_manifest(manifest, allowed)
    payload = data[end + _SIGNATURE_BYTES :]
    learner, joiner = _split(payload, manifest)
    return Snapshot(
        id=_identity(manifest.learn_seq, data[start:end]),
        manifest=manifest,
        learner=learner,
        joiner=joiner,
        data=bytes(data),
    )


def is_signed(snapshot: Snapshot) -> bool:
    """Whether a key signed it; which one is for :func:`unpack` to say."""
    (length,) = _LENGTH.unpack_from(snapshot.data, len(MAGIC))
    end = len(MAGIC) + _LENGTH.size + length
    return snapshot.data[end : end + _SIGNATURE_BYTES] != _UNSIGNED


def _identity(learn_seq: int, body: bytes) -> str:
    return f"{learn_seq:012d}-{hashlib.sha256(body).hexdigest()[:12]}"


def _signature(head: bytes, key: bytes | None) -> bytes:
    return hmac.digest(key, head, "sha256") if key else _UNSIGNED


def _check_signature(head: bytes, signature: bytes, key: bytes | None) -> None:
    if not key:
        return
    if signature == _UNSIGNED:
        raise SnapshotError(
            "the snapshot is not signed, but a key is configured", reason="unsigned"
        )
    if not hmac.compare_digest(signature, _signature(head, key)):
        raise SnapshotError(
            "the snapshot's HMAC is wrong: another key, or it was changed", reason="bad_hmac"
        )


def _decode_manifest(body: bytes) -> Manifest:
    try:
        manifest = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise SnapshotError(f"the snapshot's manifest is damaged: {error}") from error
    if manifest.schema != SCHEMA_VERSION:
        raise SnapshotError(
            f"the snapshot has schema {manifest.schema}; this build reads {SCHEMA_VERSION}",
            reason="unknown_version",
        )
    return manifest


def _check_manifest(manifest: Manifest, allowed: Mapping[str, Collection[str]] | None) -> None:
    recipe = manifest.recipe
    if manifest.learn_seq < 0 or not math.isfinite(manifest.created_ts):
        raise SnapshotError("the manifest's learn_seq or created_ts is out of range")
    _check_offsets(manifest.offsets)
    if set(manifest.sizes) != {"learner", "joiner"} or min(manifest.sizes.values()) < 0:
        raise SnapshotError(f"the manifest lists the parts {manifest.sizes!r:.100}")
    problem = _options_problem(recipe, allowed)
    if problem is not None:
        raise SnapshotError(problem, reason="bad_option")


def _options_problem(recipe: Recipe, allowed: Mapping[str, Collection[str]] | None) -> str | None:
    """What is wrong with a recipe's policy and its options, or None."""
    if len(recipe.options) > _MAX_OPTIONS:
        return f"{len(recipe.options)} policy options are more than {_MAX_OPTIONS}"
    for name, value in recipe.options.items():
        if not _OPTION_NAME.fullmatch(name):
            return f"{name!r:.80} is no name of a policy option"
        if isinstance(value, str) and len(value) > _MAX_OPTION_CHARS:
            return f"policy option {name} is {len(value)} characters long"
        if isinstance(value, float) and not math.isfinite(value):
            return f"policy option {name} is {value!r}"
    if allowed is None:
        return None
    if recipe.policy not in allowed:
        return f"policy {recipe.policy!r:.80} is not allowed here"
    foreign = sorted(set(recipe.options) - set(allowed[recipe.policy]))
    return f"policy {recipe.policy} may not carry the options {foreign}" if foreign else None


def _check_offsets(offsets: Mapping[str, int]) -> None:
    if "log" not in offsets or len(offsets) > _MAX_SOURCES:
        raise SnapshotError(f"the manifest has offsets of {sorted(offsets)!r:.100}")
    for source, offset in offsets.items():
        if not _SOURCE_NAME.fullmatch(source) or not -1 <= offset < 2**63:
            raise SnapshotError(f"the manifest's offset {offset} of {source!r:.40} is out of range")


def _split(payload: bytes, manifest: Manifest) -> tuple[bytes, bytes]:
    first, second = manifest.sizes["learner"], manifest.sizes["joiner"]
    if len(payload) != first + second:
        raise SnapshotError(
            f"truncated or padded: {len(payload)} bytes of payload instead of {first + second}",
            reason="truncated",
        )
    if hashlib.sha256(payload).hexdigest() != manifest.sha256:
        raise SnapshotError("the snapshot's payload does not have its sha256: it was changed")
    return payload[:first], payload[first:]
