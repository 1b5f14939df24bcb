"""The golden corpus of wire schema 1: it is read the same for ever, and is never edited."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from bandit_router.errors import EventError
from bandit_router.events import (
    METRIC_RANGES,
    SCHEMA_VERSION,
    Change,
    ChangeKind,
    Completion,
    ErrorOutcome,
    Escalation,
    EscalationReason,
    Feedback,
    decode,
    encode,
)
from bandit_router.events.codec import DecisionOnWire, FeaturesOnWire
from bandit_router.events.rows import InteractionOnWire
from bandit_router.types import Slice

CORPUS = Path(__file__).parent / "v1"
VALID = sorted((CORPUS / "valid").glob("*.json"))
INVALID = sorted((CORPUS / "invalid").glob("*.json"))

FINGERPRINTS = {1: "113cf87d786b78f3"}
"""Of all wire forms, per schema version. A version that was released keeps its fingerprint."""


@pytest.mark.parametrize("path", VALID, ids=lambda p: p.stem)
def test_a_valid_event_decodes_and_encodes_to_the_same_bytes(path: Path):
    data = path.read_bytes()
    assert encode(decode(data)) == data


@pytest.mark.parametrize("path", INVALID, ids=lambda p: p.stem)
def test_an_invalid_event_is_refused_for_the_reason_in_its_name(path: Path):
    with pytest.raises(EventError) as caught:
        decode(path.read_bytes())
    assert caught.value.reason == path.name.partition("--")[0]
    assert str(caught.value)


def test_the_corpus_covers_every_type_and_kind():
    kinds = {type(decode(path.read_bytes())).__name__ for path in VALID}
    assert kinds == {"Decision", "Completion", "Escalation", "Feedback", "ErrorOutcome", "Change"}


def test_the_corpus_was_not_edited():
    sums = (CORPUS / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in sums)}
    found = {
        str(path.relative_to(CORPUS)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VALID + INVALID
    }
    assert found == listed


FORMS = (
    DecisionOnWire, FeaturesOnWire, Completion, Escalation, Feedback, ErrorOutcome, Change,
    InteractionOnWire,
)  # fmt: skip
WORDS = (Slice, EscalationReason, ChangeKind)


def fingerprint() -> str:
    """Of the names, types and defaults of everything that is written to the wire."""
    fields = [
        (form.__name__, field.encode_name, form.__annotations__[field.name], repr(field.default))
        for form in FORMS
        for field in msgspec.structs.fields(form)
    ]
    tags = [(form.__struct_config__.tag_field, form.__struct_config__.tag) for form in FORMS]
    words = [get_args(literal) for literal in WORDS]
    text = msgspec.json.encode([fields, tags, words, METRIC_RANGES])
    return hashlib.sha256(text).hexdigest()[:16]


def test_fields_do_not_change_without_a_new_schema_version():
    assert fingerprint() == FINGERPRINTS[SCHEMA_VERSION], (
        "the wire forms changed: raise SCHEMA_VERSION, write an upcaster from the old version, "
        "start a corpus for the new one, and add its fingerprint here"
    )
