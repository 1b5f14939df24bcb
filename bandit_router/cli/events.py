"""`bandit-router events init|tail|dlq|schema|replay`: the topics or the log, seen from outside."""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bandit_router.cli.output import ConfigOption, JsonOption, command_group, emit
from bandit_router.errors import InputError, StorageError, TransportError

if TYPE_CHECKING:
    from rich.console import Console

    from bandit_router.adapters.kafka.admin import TopicState
    from bandit_router.adapters.letters import Letter, Letters
    from bandit_router.adapters.records import Record
    from bandit_router.config import Settings
    from bandit_router.streaming.replaying import Resent

app = command_group("Make the topics, look at records, and send dead letters again.")

_FOLLOW_S = 0.5


class Topic(StrEnum):
    """What can be looked at."""

    DECISIONS = "decisions"
    OUTCOMES = "outcomes"
    CHANGES = "changes"
    SNAPSHOTS = "snapshots"
    DEAD_LETTERS = "dead_letters"
    ORDER = "order"


_IN_A_STORE = (Topic.DECISIONS, Topic.OUTCOMES, Topic.CHANGES, Topic.DEAD_LETTERS)

DbOption = Annotated[
    Path | None,
    typer.Option(
        help="Look into this event log instead. Default: Kafka, or store.path with "
        "events.transport sqlite."
    ),
]
ReasonOption = Annotated[
    str | None, typer.Option(help="Only those with this reason, as dlq tells it.")
]


@app.command("init")
def init(config: ConfigOption = None, json_output: JsonOption = False) -> None:
    """Make the topics that are missing, and say what is wrong with those that are there.

    Safe to repeat: nothing that is there is changed. Exit code 1 when a topic is not as it must be
    or the cluster cannot be reached.
    """
    from bandit_router.adapters.kafka.admin import init_topics
    from bandit_router.bootstrap import make_connection
    from bandit_router.config import load_settings

    events = load_settings(config).events
    if events.transport != "kafka":
        raise InputError(
            'events.transport is "sqlite", which needs no topics; set it to "kafka" (see '
            "configs/kafka.toml) to use Kafka"
        )
    topics = init_topics(
        make_connection(events),
        replication=events.replication,
        retention_hours=events.retention_hours,
    )
    good = not any(topic.wrong for topic in topics)
    found = [
        {"topic": t.topic, "state": t.state, "problem": t.problem, "mend": t.mend} for t in topics
    ]
    result = {"schema": "bandit_router.events_init/1", "ok": good, "topics": found}
    emit(result, json_output, human=lambda console: _draw_topics(console, topics))
    if not good:
        raise typer.Exit(1)


@app.command("tail")
def tail(
    topic: Annotated[
        Topic | None,
        typer.Option(help="One topic. Default: decisions, outcomes and changes, by time."),
    ] = None,
    app_name: Annotated[str | None, typer.Option("--app", help="Only those of this app.")] = None,
    last: Annotated[int, typer.Option(help="How many of the newest.", min=0)] = 20,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what comes.")] = False,
    db: DbOption = None,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show records as they are: one line each, or one JSON object a line with --json.

    What is no event is shown with the reason. Nothing that a terminal could take for a command is
    ever printed. Ctrl-C ends --follow.
    """
    from bandit_router.config import load_settings

    settings = load_settings(config)
    path = _store_path(settings, db)
    if path is not None:
        records = _tail_store(path, topic, app_name, last, follow=follow)
    else:
        records = _tail_kafka(settings, topic, app_name, last, follow=follow)
    try:
        for record in records:
            _print(record, json_output)
    except KeyboardInterrupt:
        if not follow:
            raise


@app.command("dlq")
def dlq(
    reason: ReasonOption = None,
    last: Annotated[int, typer.Option(help="How many of the newest to show.", min=0)] = 20,
    db: DbOption = None,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show dead letters: why, where from, when, how large, how they begin; and count them.

    In a store these are all the items that were set aside: those that are no events, and those
    that the joiner or the learner had no use for (late, duplicate...).
    """
    from bandit_router.cli.event_lines import letter_line, letter_values
    from bandit_router.config import load_settings

    settings = load_settings(config)
    counts: Counter[str] = Counter()
    shown: deque[tuple[str, dict[str, Any]]] = deque(maxlen=last)
    replayed = 0
    for letter in _letters(settings, _store_path(settings, db)):
        if reason not in {None, letter.record.reason}:
            continue
        counts[letter.record.reason] += 1
        replayed += letter.replayed
        values = {**letter_values(letter.record), "replayed": letter.replayed}
        shown.append((letter_line(letter), values))
    result = {
        "schema": "bandit_router.dead_letters/1",
        "total": counts.total(),
        "replayed": replayed,
        "counts": dict(sorted(counts.items())),
        "letters": [values for _, values in shown],
    }
    emit(
        result,
        json_output,
        human=lambda console: _draw_letters(console, [line for line, _ in shown], result),
    )


@app.command("schema")
def schema(json_output: JsonOption = False) -> None:
    """Print the events of the wire schema, field by field; with --json their JSON Schema.

    Whoever writes events in another language can check them against it.
    """
    from bandit_router.events.wire_schema import wire_schema

    found = wire_schema()
    emit(found, json_output, human=lambda console: _draw_schema(console, found))


@app.command("replay")
def replay(
    reason: ReasonOption = None,
    file: Annotated[
        Path | None,
        typer.Option(help="Send the events of this file instead, one JSON object a line."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be sent; send nothing.")
    ] = False,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Send dead letters that are valid by now back to their topics, or to the log, once.

    They keep their event_id. What was sent before is not sent again; what is still invalid stays
    where it is. Events whose key is of another app than they are (forged_app) are sent only with
    --reason forged_app. Lines of --file must all be valid. Exit code 1 when a broker refused an
    event.
    """
    from bandit_router.config import load_settings
    from bandit_router.streaming.replaying import resend, resend_file

    if file is not None and reason is not None:
        raise InputError("--reason chooses among dead letters; lines of --file have none")
    settings = load_settings(config)
    found = _Replayed(dry_run)
    with _place(settings) as place:
        items = (
            resend(place, reason=reason, dry_run=dry_run)
            if file is None
            else resend_file(place, file, dry_run=dry_run)
        )
        try:
            for item in items:
                found.add(item)
        except (StorageError, TransportError) as error:
            sent = found.counts["sent"]
            raise type(error)(
                f"{error}; {sent} were sent before, run it again for the rest"
            ) from error
    emit(found.values(), json_output, human=found.draw)
    if found.counts["failed"]:
        raise typer.Exit(1)


class _Replayed:
    """What became of the letters, counted; the newest of those that were not sent."""

    def __init__(self, dry_run: bool) -> None:
        self.counts: Counter[str] = Counter()
        self._dry_run = dry_run
        self._kept: deque[dict[str, Any]] = deque(maxlen=50)

    def add(self, item: Resent) -> None:
        """Count one."""
        from bandit_router.cli.event_lines import printable

        self.counts[item.status] += 1
        if item.status != "sent_before":
            self._kept.append(
                {
                    "status": item.status,
                    "topic": printable(item.record.topic),
                    "partition": None if item.record.partition < 0 else item.record.partition,
                    "offset": item.offset if item.record.offset < 0 else item.record.offset,
                    "event_id": printable(item.event_id),
                    "detail": printable(item.detail),
                }
            )

    def values(self) -> dict[str, Any]:
        """The result for --json."""
        names = ("sent", "ready", "sent_before", "invalid", "failed")
        return {
            "schema": "bandit_router.events_replay/1",
            "dry_run": self._dry_run,
            **{name: self.counts[name] for name in names},
            "items": list(self._kept),
        }

    def draw(self, console: Console) -> None:
        """The result for people."""
        for item in self._kept:
            place = "@".join(str(item[name]) for name in ("topic", "offset"))
            _line(
                console, f"{item['status']}: {place} {item['event_id']} {item['detail']}".rstrip()
            )
        words = {
            "sent": "sent",
            "ready": "would be sent",
            "sent_before": "sent before",
            "invalid": "still invalid",
            "failed": "refused by the broker",
        }
        told = [f"{self.counts[name]} {text}" for name, text in words.items() if self.counts[name]]
        _line(console, ", ".join(told) or "no dead letters")


def _store_path(settings: Settings, db: Path | None) -> Path | None:
    """The log to look into, or None for Kafka."""
    if db is not None:
        return db
    return settings.store.path if settings.events.transport == "sqlite" else None


def _place(settings: Settings) -> Letters:
    """Where the dead letters are."""
    from bandit_router.adapters.kafka.letters import KafkaLetters
    from bandit_router.adapters.sqlite_inspect import StoreLetters
    from bandit_router.bootstrap import make_connection

    if settings.events.transport == "sqlite":
        return StoreLetters(settings.store.path)
    return KafkaLetters(make_connection(settings.events))


def _letters(settings: Settings, path: Path | None) -> Iterator[Letter]:
    from bandit_router.adapters.sqlite_inspect import StoreInspector

    with _place(settings) if path is None else StoreInspector(path) as place:
        yield from place.letters()


def _tail_store(
    path: Path, topic: Topic | None, app_name: str | None, last: int, *, follow: bool
) -> Iterator[Record]:
    from bandit_router.adapters.sqlite_inspect import StoreInspector

    if topic is not None and topic not in _IN_A_STORE:
        raise InputError(f"--topic {topic}: an event log has none; it has {', '.join(_IN_A_STORE)}")
    with StoreInspector(path) as store:
        end = store.last_offset()
        for record in store.last(last, topic=topic, app=app_name):
            yield record
            end = max(end, record.offset)
        while follow:
            time.sleep(_FOLLOW_S)
            there = store.last_offset()
            for record in store.after(end, topic=topic, app=app_name):
                yield record
                there = max(there, record.offset)
            end = there


def _tail_kafka(
    settings: Settings, topic: Topic | None, app_name: str | None, last: int, *, follow: bool
) -> Iterator[Record]:
    from bandit_router.adapters.kafka.client import SOURCES
    from bandit_router.adapters.kafka.inspect import Inspector
    from bandit_router.bootstrap import make_connection

    topics: Sequence[str] = SOURCES if topic is None else (topic,)
    wanted = None if app_name is None else app_name.encode("utf-8", "surrogateescape")

    def keep(record: Record) -> bool:
        # Parts of a large snapshot have the app and their number as key.
        return wanted in {record.key, (record.key or b"").partition(b"\0")[0]}

    chosen = None if wanted is None else keep
    with Inspector(make_connection(settings.events)) as inspector:
        spans = inspector.spans(topics)
        yield from inspector.last(spans, last, chosen)
        if follow:
            yield from inspector.follow({place: end for place, (_, end) in spans.items()}, chosen)


def _print(record: Record, json_output: bool) -> None:
    from bandit_router.cli.event_lines import record_line, record_values

    if json_output:
        typer.echo(json.dumps(record_values(record), allow_nan=False))
    else:
        typer.echo(record_line(record).encode(errors="backslashreplace").decode())


def _line(console: Console, text: str) -> None:
    from rich.text import Text

    console.print(Text(text), soft_wrap=True)


def _draw_topics(console: Console, topics: Sequence[TopicState]) -> None:
    from bandit_router.cli.event_lines import printable

    for topic in topics:
        problem = f": {printable(topic.problem)}" if topic.problem else ""
        _line(console, f"{topic.state:<8} {topic.topic}{problem}")
        if topic.mend:
            _line(console, f"{'':<9}mend: {printable(topic.mend)}")


def _draw_letters(console: Console, lines: Sequence[str], result: Mapping[str, Any]) -> None:
    from bandit_router.cli.event_lines import printable

    for line in lines:
        _line(console, line)
    counts = ", ".join(f"{n} {printable(reason)}" for reason, n in result["counts"].items())
    _line(console, f"{result['total']} in all{': ' if counts else ''}{counts}")
    if result["replayed"]:
        _line(console, f"{result['replayed']} of them were sent again")


def _draw_schema(console: Console, found: Mapping[str, Any]) -> None:
    _line(console, f"{found['title']}. {found['description']}")
    for name, form in found["$defs"].items():
        _line(console, f"\n{name}: {form['description']}")
        for field, values in form["properties"].items():
            need = "" if field in form["required"] else " (optional)"
            _line(console, f"  {field:<20} {_type(values)}{need}: {values['description']}")


def _type(values: Mapping[str, Any]) -> str:
    """A field's type in words."""
    if "const" in values:
        return str(values["const"])
    if "enum" in values:
        return " | ".join(str(value) for value in values["enum"])
    if "anyOf" in values:
        return " | ".join(_type(option) for option in values["anyOf"])
    if "$ref" in values:
        return str(values["$ref"]).rpartition("/")[2]
    if "items" in values:
        return f"[{_type(values['items'])}]"
    return str(values["type"])
