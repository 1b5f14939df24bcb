"""`bandit-router rollout show|set|off`: how much traffic the bandit has, and the kill switch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bandit_router.cli.output import ConfigOption, JsonOption, command_group, emit
from bandit_router.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from bandit_router.rollout.flag_document import FlagState

app = command_group("Show or set the bandit's share of the traffic, or switch it off.")

UnitOption = Annotated[
    str | None, typer.Option(help="Also say which variant this unit is served in.")
]


@app.command("show")
def show(
    config: ConfigOption = None, unit: UnitOption = None, json_output: JsonOption = False
) -> None:
    """Show what the flag file says: on or off, and the share of each variant."""
    from bandit_router.adapters.flag_file import read_state

    path, flag = _flag_file(config)
    state = read_state(path, flag)
    result = _result(path, flag, state)
    if unit is not None:
        result["unit"] = {"unit_id": unit, "variant": _variant_of(path, flag, unit)}
    emit(result, json_output, human=lambda console: _draw(console, result))


@app.command("set")
def set_share(
    percent: Annotated[
        float, typer.Argument(help="Share of the units that the bandit serves, in steps of 0.01.")
    ],
    explore: Annotated[
        float | None, typer.Option(help="Percent in the uniform holdout. Default: as it is.")
    ] = None,
    shadow: Annotated[
        float | None,
        typer.Option(help="Percent where the bandit is asked but does not serve. Default: as is."),
    ] = None,
    after_rollback: Annotated[
        bool, typer.Option("--after-rollback", help="Lift the rollback that is in force.")
    ] = False,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Set the bandit's share, and switch it on.

    The incumbent serves the rest. With more than before, units go from the incumbent to the bandit
    and no other unit changes. Running routers follow within a second. After a rollback this is
    refused until it is lifted with --after-rollback, or its cool-down is over.
    """
    from bandit_router.rollout.flag_document import flag_state, with_split
    from bandit_router.rollout.split import split

    def change(document: dict[str, Any], flag: str, where: str) -> dict[str, Any]:
        shares: dict[str, float] = {}
        if flag in document["flags"]:
            known = flag_state(document, flag, where).split
            shares = {} if known is None else known.percent
        wanted = split(
            percent,
            explore=shares.get("explore", 0.0) if explore is None else explore,
            shadow=shares.get("shadow", 0.0) if shadow is None else shadow,
        )
        changed = with_split(document, flag, wanted)
        return settled_rollback(document, changed, flag, where, lift=after_rollback)

    change_flag(config, change, json_output=json_output)


@app.command("off")
def off(config: ConfigOption = None, json_output: JsonOption = False) -> None:
    """Switch the bandit off: the incumbent serves everybody, in every router within 2 s.

    The shares stay in the file, to be seen. A file that is broken is put aside as FILE.broken, and
    one that is missing is made: the switch works in any case.
    """
    from bandit_router.rollout.flag_document import switched_off

    change_flag(
        config,
        lambda document, flag, _: switched_off(document, flag),
        replace_broken=True,
        json_output=json_output,
    )


def settled_rollback(
    before: dict[str, Any], after: dict[str, Any], flag: str, where: str, *, lift: bool
) -> dict[str, Any]:
    """``after``, unless a rollback in ``before`` forbids it; with ``lift`` it is lifted.

    Raises:
        InputError: a rollback is in force.
    """
    import time

    from bandit_router.rollout.flag_document import flag_state
    from bandit_router.rollout.rollback import lifted, rollback_of, serves_bandit

    rollback = rollback_of(before, flag)
    serves = serves_bandit(flag_state(after, flag, where))
    if serves and not lift and rollback.holds(time.time()):
        raise InputError(
            f"{where}: {rollback.why or 'rolled back'}. The bandit stays off until a person says "
            "`bandit-router rollout set N --after-rollback`"
        )
    return lifted(after, flag) if rollback.ids and (lift or serves) else after


def change_flag(
    config: Path | None,
    change: Callable[[dict[str, Any], str, str], dict[str, Any]],
    *,
    replace_broken: bool = False,
    json_output: bool,
) -> None:
    """Change the flag of the settings in one step, and say what that does.

    Args:
        change: from the old document, the flag's name and the file's to the new document.
        replace_broken: put a broken file aside, and begin with an empty one.
    """
    from bandit_router.adapters.flag_file import edit

    path, flag = _flag_file(config)
    before, after, aside = edit(
        path,
        flag,
        lambda document: change(document, flag, str(path)),
        replace_broken=replace_broken,
    )
    _changed(path, flag, before, after, aside, json_output=json_output)


def _flag_file(config: Path | None) -> tuple[Path, str]:
    """Where the flag is, and its name."""
    from bandit_router.config import load_settings

    chosen = load_settings(config).rollout
    if chosen.provider is not None:
        raise InputError(
            f"the flag is asked of {chosen.provider}, not of a file: change it where that has it"
        )
    if chosen.flags is None:
        raise InputError(
            "there is no rollout: set rollout.flags and rollout.incumbent in the configuration"
        )
    return chosen.flags, chosen.flag


def _variant_of(path: Path, flag: str, unit: str) -> str:
    from bandit_router.adapters.flags import FileProvider

    return FileProvider(path, flag).variant_of(unit)  # never started: the file is read once


def _result(path: Path, flag: str, state: FlagState) -> dict[str, Any]:
    return {
        "schema": "bandit_router.rollout/1",
        "file": str(path),
        "flag": flag,
        "enabled": state.enabled,
        "percent": state.percent,
        "version": state.version,
    }


def _changed(
    path: Path,
    flag: str,
    before: FlagState | None,
    after: FlagState,
    aside: Path | None,
    *,
    json_output: bool,
) -> None:
    result = _result(path, flag, after) | {
        "previous": None if before is None else _result(path, flag, before),
        "moved": None if before is None else _moved(before, after),
        "broken_file": None if aside is None else str(aside),
    }
    emit(result, json_output, human=lambda console: _draw(console, result))


def _moved(before: FlagState, after: FlagState) -> dict[str, float] | None:
    """Which units are served otherwise now, percent of all; None where it cannot be told."""
    from bandit_router.rollout.split import Split

    nobody = Split((("static", 1),))
    was = before.split if before.enabled else nobody
    now = after.split if after.enabled else nobody
    return None if was is None or now is None else was.moved(now)


def _draw(console: Console, result: dict[str, Any]) -> None:
    from rich.text import Text

    percent = result["percent"]
    if not result["enabled"]:
        state = "off: the incumbent serves everybody"
    elif percent is None:
        state = "on, by a targeting of its own; the shares are not known"
    else:
        state = "on: " + ", ".join(f"{name} {share:g} %" for name, share in percent.items())
    console.print(Text(f"{result['flag']} is {state}"))
    for pair, share in (result.get("moved") or {}).items():
        was, _, now = pair.partition(">")
        console.print(Text(f"{share:g} % of the units go from {was} to {now}"))
    if result.get("broken_file"):
        console.print(Text(f"the broken file is now {result['broken_file']}"), soft_wrap=True)
    if "unit" in result:
        console.print(Text(f"{result['unit']['unit_id']} is served in {result['unit']['variant']}"))
    console.print(Text(f"{result['file']}, version {result['version']}"), soft_wrap=True)
