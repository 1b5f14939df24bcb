"""The flag's file and its provider: bad content never acts, the last good one goes on."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest
from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

from bandit_router.adapters.flag_file import edit, read_state
from bandit_router.adapters.flags import FileProvider, Flags, make_provider
from bandit_router.assigning import FLAG_ERROR, FLAG_OFF, Assigner
from bandit_router.errors import ConfigError, StorageError
from bandit_router.rollout.flag_document import (
    MAX_BYTES,
    MAX_WHY_CHARS,
    switched_off,
    with_split,
)
from bandit_router.rollout.incumbent import Incumbent, IncumbentRule
from bandit_router.rollout.rollback import rollback_of
from bandit_router.rollout.split import split
from bandit_router.types import Context

FLAG = "bandit-router"


def flag(**changed) -> dict:
    good = with_split({"flags": {}}, FLAG, split(50))["flags"][FLAG]
    return {key: value for key, value in (good | changed).items() if value is not None}


def document(**changed) -> str:
    return json.dumps({"flags": {FLAG: flag(**changed)}})


BROKEN = {
    "no JSON": '{"flags": ',
    "empty": "",
    "a list": "[]",
    "no flags": '{"flag": {}}',
    "flags are a list": '{"flags": []}',
    "not UTF-8": b"\xff\xfe{",
    "deep": "[" * 100_000,
    "huge": '{"flags": {}, "x": "' + "x" * MAX_BYTES + '"}',
    "the flag is missing": '{"flags": {"other": {}}}',
    "no state": document(state=None),
    "unknown state": document(state="ON"),
    "no variants": document(variants=None),
    "foreign variant": document(variants={"blue": "blue"}),
    "value is not the name": document(variants={"bandit": "static"}),
    "boolean variants": document(variants={"bandit": True}),
    "default is missing": document(variants={"bandit": "bandit"}, targeting=None),
    "variant of the targeting is missing": document(
        variants={"static": "static"}, targeting={"fractional": [["bandit", 1]]}
    ),
    "unknown operator": document(targeting={"magic": [1]}),
    "targeting is a list": document(targeting=[1]),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "flags.json"
    path.write_text(document())
    return path


def write(path: Path, content: str | bytes) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def test_other_flags_and_other_keys_are_nobodys_business(file):
    content = json.loads(document(colour="red", metadata=7))
    content["flags"]["checkout"] = {"state": "BROKEN", "variants": 7}
    file.write_text(json.dumps(content))
    assert FileProvider(file, FLAG).status()["percent"]["bandit"] == 50.0


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_at_the_start_a_bad_file_is_an_error_that_names_it(file, content):
    write(file, content)
    with pytest.raises(ConfigError, match=r"flags\.json"):
        FileProvider(file, FLAG)


def test_at_the_start_a_missing_file_is_an_error_that_says_how_to_make_it(tmp_path):
    with pytest.raises(ConfigError, match="no such flag file; `bandit-router rollout set 0`"):
        FileProvider(tmp_path / "flags.json", FLAG)


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_while_running_a_bad_file_leaves_the_last_good_one_and_is_said(file, content):
    provider = FileProvider(file, FLAG)
    units = [f"u{number}" for number in range(50)]
    before = [provider.variant_of(unit) for unit in units]
    write(file, content)
    for _ in range(3):
        provider.refresh()
    status = provider.status()
    assert [provider.variant_of(unit) for unit in units] == before
    assert status["percent"]["bandit"] == 50.0
    assert "flags.json" in status["problem"]
    assert status["refused_files"] == 1  # the same problem is one problem, however often looked at
    file.write_text(document(targeting={"fractional": [["bandit", 1]]}))
    provider.refresh()
    assert provider.status()["problem"] == ""
    assert {provider.variant_of(unit) for unit in units} == {"bandit"}


def test_a_file_that_vanishes_and_comes_back_is_no_change(file):
    provider = FileProvider(file, FLAG)
    provider.changes()
    content = file.read_bytes()
    file.unlink()
    provider.refresh()
    assert "no such flag file" in provider.status()["problem"]
    write(file, content)
    provider.refresh()
    assert provider.status()["problem"] == ""
    assert provider.changes() == []


def test_a_change_is_noted_once_with_what_moved(file):
    provider = FileProvider(file, FLAG)
    [start] = provider.changes()
    assert start["previous"] is None
    edit(file, FLAG, lambda known: with_split(known, FLAG, split(60)))
    provider.refresh()
    provider.refresh()
    [change] = provider.changes()
    assert change["previous"] == start["version"]
    assert change["moved"] == {"static>bandit": pytest.approx(10.0)}
    assert change["percent"]["bandit"] == 60.0


def test_the_reason_in_a_file_is_made_fit_for_log_and_screen(file):
    file.write_text(document(metadata={"why": "\x1b[31mred\nalert \ud800\u202e" + "!" * 10_000}))
    for why in (
        FileProvider(file, FLAG).changes()[0]["why"],
        rollback_of(json.loads(file.read_bytes()), FLAG).why,
    ):
        assert why.startswith(" [31mred alert   !!!")
        assert (why.isprintable(), len(why)) == (True, MAX_WHY_CHARS)


def test_content_of_the_same_size_within_the_same_instant_is_seen(file):
    provider = FileProvider(file, FLAG)
    before = file.stat()
    file.write_text(file.read_text().replace("5000", "4000", 1).replace("5000", "6000", 1))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    provider.refresh()
    assert provider.status()["percent"]["bandit"] == 40.0


def test_readers_see_the_old_content_or_the_new_one(file):
    """Thousands of reads during hundreds of edits: never a part, never nothing."""
    stop, failures, reads = threading.Event(), [], 0

    def look() -> None:
        nonlocal reads
        while not stop.is_set():
            try:
                read_state(file, FLAG)
            except ConfigError as error:
                failures.append(error)
            reads += 1

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(100):
        edit(file, FLAG, lambda known, n=number: with_split(known, FLAG, split(n)))
    stop.set()
    reader.join()
    assert failures == []
    assert reads > 100


def test_two_editors_lose_nothing(file):
    def add(name: str) -> None:
        for number in range(20):
            key = f"{name}-{number}"
            edit(file, FLAG, lambda d, k=key: d | {"flags": d["flags"] | {k: {}}})

    editors = [threading.Thread(target=add, args=(name,)) for name in "ab"]
    for editor in editors:
        editor.start()
    for editor in editors:
        editor.join()
    assert len(json.loads(file.read_text())["flags"]) == 41


def test_an_edit_keeps_the_rest_of_the_file_its_link_and_its_mode(tmp_path, file):
    content = json.loads(document(metadata={"owner": "search"}))
    content |= {"$schema": "https://flagd.dev/schema/v0/flags.json"}
    content["flags"]["other"] = {"state": "ENABLED"}
    file.write_text(json.dumps(content))
    file.chmod(0o640)
    link = tmp_path / "link.json"
    link.symlink_to(file)
    edit(link, FLAG, lambda known: with_split(known, FLAG, split(10)))
    after = json.loads(file.read_text())
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o640
    assert after["$schema"] == content["$schema"]
    assert after["flags"]["other"] == {"state": "ENABLED"}
    assert after["flags"][FLAG]["metadata"] == {"owner": "search"}


def test_an_edit_that_would_break_the_file_writes_nothing(file):
    before = file.read_bytes()
    with pytest.raises(ConfigError):
        edit(file, FLAG, lambda known: known | {"flags": {FLAG: {"state": "ON"}}})
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir() if path.name.startswith(".")] == []


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(StorageError, match="cannot be written"):
        edit(tmp_path / "none" / "flags.json", FLAG, lambda known: switched_off(known, FLAG))


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_the_kill_switch_works_on_any_file(file, content):
    write(file, content)
    _, after, aside = edit(file, FLAG, lambda known: switched_off(known, FLAG), replace_broken=True)
    assert not after.enabled
    assert not read_state(file, FLAG).enabled
    if aside is not None:
        assert aside.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert {FileProvider(file, FLAG).variant_of(f"u{n}") for n in range(20)} == {"static"}


def assigner(provider, rules=()) -> Assigner:
    return Assigner(Flags(provider, FLAG), Incumbent("old", rules))


def query(**known) -> Context:
    return Context(event_id="e", ts=1.0, **known)


def test_a_watched_file_acts_by_itself(file):
    watching = assigner(FileProvider(file, FLAG, poll_s=0.01))
    try:
        edit(file, FLAG, lambda known: switched_off(known, FLAG))
        deadline = time.monotonic() + 5.0
        while watching.status()["enabled"]:
            assert time.monotonic() < deadline
            threading.Event().wait(0.005)
        assert watching.assign(query(unit_id="u")).rules == (FLAG_OFF,)
        assert watching.status()["provider_status"] == "READY"
    finally:
        watching.close()


def test_a_missing_unit_is_derived_and_counted(file):
    watching = assigner(FileProvider(file, FLAG))
    try:
        chosen = [
            watching.assign(query(unit_id="u")),
            watching.assign(query(tenant="t")),
            watching.assign(query(columns={"session": "s"})),
            watching.assign(query()),
        ]
        assert [one.unit_id for one in chosen] == ["u", "tenant:t", "session:s", "event:e"]
        assert [one.rules for one in chosen] == [
            (),
            ("derived_unit:tenant",),
            ("derived_unit:session",),
            ("derived_unit:event",),
        ]
        counts = watching.status()["counts"]
        assert counts["derived_unit"] == {"session": 1, "tenant": 1, "event": 1}
        assert sum(counts[name] for name in ("static", "bandit")) == 4
    finally:
        watching.close()


def test_a_targeting_may_ask_for_the_requests_columns(file):
    rule = {"if": [{"==": [{"var": "task"}, "code"]}, "explore", "static"]}
    file.write_text(document(targeting=rule))
    watching = assigner(FileProvider(file, FLAG))
    try:
        assert watching.assign(query(columns={"task": "code"})).variant == "explore"
        assert watching.assign(query(columns={"task": "chat"})).variant == "static"
        assert watching.status()["percent"] is None
    finally:
        watching.close()


def test_an_answer_that_is_no_variant_is_the_incumbents_and_is_counted(file):
    """A targeting may compute a name that no check of the file can foresee."""
    file.write_text(document(targeting={"cat": [{"var": "task"}, ""]}))
    with pytest.raises(ConfigError, match="cannot be evaluated"):
        FileProvider(file, FLAG)  # without a task it gives "", which is no variant
    rule = {"if": [{"var": "task"}, {"var": "task"}, "static"]}
    file.write_text(document(targeting=rule))
    watching = assigner(FileProvider(file, FLAG))
    try:
        chosen = watching.assign(query(unit_id="u", columns={"task": "purple"}))
        assert (chosen.variant, chosen.rules) == ("static", (FLAG_ERROR,))
        status = watching.status()
        assert status["counts"]["flag_errors"] == 1
        assert "purple" in status["error"]
    finally:
        watching.close()


def memory(value: str) -> InMemoryProvider:
    return InMemoryProvider({FLAG: InMemoryFlag("on", {"on": value})})


@pytest.mark.parametrize(
    ("value", "variant", "rules"),
    [("explore", "explore", ()), ("purple", "static", (FLAG_ERROR,))],
)
def test_any_openfeature_provider_may_answer(value, variant, rules):
    watching = assigner(memory(value))
    try:
        chosen = watching.assign(query(unit_id="u"))
        assert (chosen.variant, chosen.rules) == (variant, rules)
        assert watching.status()["provider"] == "In-Memory Provider"
    finally:
        watching.close()


def test_a_provider_that_lacks_the_flag_leaves_the_incumbent():
    watching = assigner(InMemoryProvider({}))
    try:
        assert watching.assign(query(unit_id="u")).rules == (FLAG_ERROR,)
        assert "FLAG_NOT_FOUND" in watching.status()["error"]
    finally:
        watching.close()


def test_two_rollouts_in_one_process_do_not_meet(file):
    ours, theirs = assigner(FileProvider(file, FLAG)), assigner(memory("explore"))
    ours.close()
    try:
        assert theirs.assign(query(unit_id="u")).variant == "explore"
    finally:
        theirs.close()


def test_a_provider_is_made_by_its_factory_with_its_options():
    name = "openfeature.provider.in_memory_provider:InMemoryProvider"
    assert isinstance(make_provider(name, {"flags": {}}), InMemoryProvider)


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("no.such.module:Provider", {}),
        ("json:Provider", {}),
        ("openfeature.provider.in_memory_provider:InMemoryProvider", {"colour": "red"}),
    ],
)
def test_a_factory_that_is_wrong_is_a_configuration_error(spec, options):
    with pytest.raises(ConfigError, match=r"rollout\.provider"):
        make_provider(spec, options)


def test_a_provider_that_does_not_start_is_a_configuration_error():
    class Dead(InMemoryProvider):
        def initialize(self, evaluation_context):
            raise OSError("no route to host")

    with pytest.raises(ConfigError, match="does not start: no route to host"):
        Flags(Dead({}), FLAG)


def test_the_incumbent_is_the_first_rule_that_fits():
    rules = [
        IncumbentRule(column="task", equals="code", model="coder"),
        IncumbentRule(column="tier", equals="gold", model="dear"),
    ]
    incumbent = Incumbent("old", rules)
    assert incumbent.of(query(columns={"task": "code", "tier": "gold"})) == "coder"
    assert incumbent.of(query(columns={"tier": "gold"})) == "dear"
    assert incumbent.of(query()) == "old"
