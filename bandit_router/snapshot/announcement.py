"""How a snapshot is announced to those who follow: what it is, whose, and in how many pieces.

The announcement is small and signed by itself, so that a follower knows which learner speaks, and
how much will come, before it decodes a byte of the rest. The container travels whole or in chunks,
compressed when that makes it smaller; what is decompressed is bounded by the announced size.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import zlib
from collections.abc import Sequence
from typing import Literal

import msgspec

from bandit_router.errors import SnapshotError
from bandit_router.snapshot.container import Snapshot

SCHEMA_VERSION = 1
MAX_ANNOUNCEMENT_BYTES = 16 * 1024
MAX_PUBLISHED_BYTES = 128 * 1024 * 1024
"""Largest container that is published or taken. With 8 models and text features one has 5 MB; the
rest is room for the joiner's open decisions, of which it is 100,000."""
MAX_CHUNKS = 256
"""Half as many would do for the largest container; the rest is room for smaller chunks."""
CHUNK_BYTES = 900_000
"""Bytes of a container in one record: below the 1,048,588 that a topic takes by default, with room
for the announcement and the record's own fields."""

_MAX_TEXT = 512
_ID = re.compile(r"[0-9]{12}-[0-9a-f]{12}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_PURPOSE = b"bandit_router snapshot announcement\n"


class Announcement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is said of a published snapshot.

    Attributes:
        app: owner of the policy.
        epoch: which claim on the app published it, >= 0; a lower one is stale.
        learner: who published it, for people.
        snapshot_id, parent, learn_seq, created_ts: as in the snapshot's manifest.
        size: bytes of the container.
        sha256: of the container, hexadecimal.
        chunks: into how many records the container was cut; 0 when it comes with this one.
        encoding: how the container is compressed before it is cut.
        hmac: HMAC-SHA256 of the rest, hexadecimal; "" when no key is configured.
    """

    schema: int = SCHEMA_VERSION
    app: str
    epoch: int
    learner: str
    snapshot_id: str
    parent: str
    learn_seq: int
    created_ts: float
    size: int
    sha256: str
    chunks: int
    encoding: Literal["zlib", ""]
    hmac: str = ""

    @property
    def rank(self) -> tuple[int, int]:
        """Of two announcements of one app, the one with the higher rank counts."""
        return self.epoch, self.learn_seq


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Announcement)


def announce(
    app: str,
    snapshot: Snapshot,
    *,
    epoch: int,
    learner: str,
    key: bytes | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> tuple[Announcement, list[bytes]]:
    """The announcement of a snapshot, signed when there is a ``key``, and the pieces it comes in.

    One piece goes with the announcement itself; more have records of their own.

    Raises:
        SnapshotError: the snapshot is too large to be published.
    """
    data = snapshot.data
    packed, encoding = zlib.compress(data, 1), "zlib"
    if len(packed) >= len(data):
        packed, encoding = data, ""
    pieces = [packed[at : at + chunk_bytes] for at in range(0, len(packed), chunk_bytes)]
    if len(data) > MAX_PUBLISHED_BYTES or len(pieces) > MAX_CHUNKS:
        raise SnapshotError(
            f"snapshot {snapshot.id} of {app!r:.80} has {len(data)} bytes, {len(pieces)} pieces: "
            f"at most {MAX_PUBLISHED_BYTES} and {MAX_CHUNKS} can be published",
            reason="size",
        )
    unsigned = Announcement(
        app=app,
        epoch=epoch,
        learner=learner[:_MAX_TEXT],
        snapshot_id=snapshot.id,
        parent=snapshot.manifest.parent,
        learn_seq=snapshot.manifest.learn_seq,
        created_ts=snapshot.manifest.created_ts,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        chunks=len(pieces) if len(pieces) > 1 else 0,
        encoding=encoding,
    )
    signed = msgspec.structs.replace(unsigned, hmac=_signature(unsigned, key))
    return signed, pieces


def encode(announcement: Announcement) -> bytes:
    """JSON, the same bytes for equal announcements."""
    return _encoder.encode(announcement)


def decode(data: bytes, *, app: str, key: bytes | None = None) -> Announcement:
    """Read and verify an announcement that claims to be of ``app``.

    Raises:
        SnapshotError: it is none, of another app, or not signed as the key demands.
    """
    if len(data) > MAX_ANNOUNCEMENT_BYTES:
        raise SnapshotError(
            f"an announcement of {len(data)} bytes; {MAX_ANNOUNCEMENT_BYTES} are allowed",
            reason="size",
        )
    try:
        found = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise SnapshotError(f"this is no announcement of a snapshot: {error}") from error
    if found.schema != SCHEMA_VERSION:
        raise SnapshotError(
            f"the announcement has schema {found.schema}; this build reads {SCHEMA_VERSION}",
            reason="unknown_version",
        )
    _check_signature(found, key)
    if found.app != app:
        raise SnapshotError(
            f"an announcement of {found.app!r:.80} under the key of {app!r:.80}", reason="wrong_app"
        )
    _check_ranges(found)
    return found


def assemble(announcement: Announcement, pieces: Sequence[bytes]) -> bytes:
    """The container from all its pieces, of the announced size and sha256.

    Raises:
        SnapshotError: the pieces give something else.
    """
    size, packed = announcement.size, b"".join(pieces)
    data = packed
    if announcement.encoding == "zlib":
        decoder = zlib.decompressobj()
        try:
            data = decoder.decompress(packed, size + 1)  # never more than one byte too many
        except zlib.error as error:
            raise SnapshotError(f"the pieces cannot be decompressed: {error}") from error
        if decoder.unconsumed_tail or len(data) > size:
            raise SnapshotError(f"more than the announced {size} bytes come out", reason="size")
    if len(data) < size:
        raise SnapshotError(
            f"{len(data)} bytes instead of the announced {size}", reason="truncated"
        )
    if len(data) > size:
        raise SnapshotError(f"{len(data)} bytes instead of the announced {size}", reason="size")
    if hashlib.sha256(data).hexdigest() != announcement.sha256:
        raise SnapshotError("the pieces do not have the announced sha256")
    return data


def _signature(announcement: Announcement, key: bytes | None) -> str:
    if not key:
        return ""
    body = _encoder.encode(msgspec.structs.replace(announcement, hmac=""))
    return hmac.digest(key, _PURPOSE + body, "sha256").hex()


def _check_signature(announcement: Announcement, key: bytes | None) -> None:
    if not key:
        return
    if not announcement.hmac:
        raise SnapshotError(
            "the announcement is not signed, but a key is configured", reason="unsigned"
        )
    given = announcement.hmac.encode("utf-8", "surrogatepass")
    if not hmac.compare_digest(given, _signature(announcement, key).encode()):
        raise SnapshotError(
            "the announcement's HMAC is wrong: another key, or it was changed", reason="bad_hmac"
        )


def _check_ranges(found: Announcement) -> None:
    numbers = (found.epoch, found.learn_seq, found.size)
    if min(numbers) < 0 or max(numbers) >= 2**63 or not math.isfinite(found.created_ts):
        raise SnapshotError("the announcement holds a number that is out of range")
    if not 0 <= found.chunks <= MAX_CHUNKS or found.chunks == 1:
        raise SnapshotError(f"the announcement speaks of {found.chunks} chunks")
    if max(map(len, (found.learner, found.parent))) > _MAX_TEXT:
        raise SnapshotError("the announcement holds a text that is too long")
    if not _ID.match(found.snapshot_id) or not _SHA256.match(found.sha256):
        raise SnapshotError("the announcement's snapshot_id or sha256 is none")
