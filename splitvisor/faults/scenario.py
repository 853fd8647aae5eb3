# SPDX-License-Identifier: GPL-2.0-or-later
"""What shall go wrong: read from a TOML file, checked before anything starts.

A scenario::

    seed = 7                       # the same seed and the same messages give the same faults

    [[fault]]
    kind = "delay"
    backend = "vio"                # optional: only this one's stream
    direction = "to-cpu"           # or "to-backend"
    messages = ["reply"]           # optional: as trap.proto calls them
    probability = 0.1              # or every = 50, or at = [3, 17]; of the messages that match. Default: each
    seconds = 0.05
    limit = 100                    # optional: at most so many times

See docs/faults.md for the kinds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from splitvisor.errors.problem import ProblemError
from splitvisor.process.toml_file import TomlError, read_toml

SCENARIO_BYTES = 1 << 20
"""The largest scenario."""
FAULTS_MAX = 64
SECONDS_MAX = 3600.0


class ScenarioError(ProblemError, ValueError):
    """A scenario is wrong. One line: where it stands, what is wrong, what to do."""


class Direction(StrEnum):
    """Where a message goes."""

    TO_BACKEND = "to-backend"
    TO_CPU = "to-cpu"


MESSAGES: Mapping[Direction, tuple[str, ...]] = {
    Direction.TO_BACKEND: (
        "hello", "trap", "posted", "memory_result", "invoke_result", "reset", "detach", "save_state", "restore_state", "resumed",
        "continued",
    ),
    Direction.TO_CPU: (
        "offer", "reply", "memory_read", "memory_write", "invoke", "acknowledge", "interrupt", "reset_done", "dirty", "action",
        "inventory", "saved_state", "crq_entries",
    ),
}  # fmt: skip
"""What travels, by the names of trap.proto."""
_LATER = {direction: frozenset(names[1:]) - {"restore_state"} for direction, names in MESSAGES.items()}
"""All but the introduction, which each connection needs to become one."""


@dataclass(frozen=True)
class Kind:
    """What can go wrong."""

    name: str
    summary: str
    setting: str = ""
    """The key that it needs: "seconds" or "bytes_per_second"."""
    only: Mapping[Direction, frozenset[str]] | None = None
    """The messages that it can happen to; None: any but the introduction."""


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("delay", "the message and those after it arrive later by this time; several may be in flight", "seconds"),
        Kind("jitter", "a random delay of up to this time, determined by the seed", "seconds"),
        Kind("stall", "nothing is forwarded in that direction for this time", "seconds"),
        Kind("slow", "the proxy reads so slowly that the sender is held back", "bytes_per_second"),
        Kind("lose", "the connection breaks, and the message is lost"),
        Kind("duplicate", "the message arrives twice"),
        Kind("reorder", "the next message overtakes this one; back ends refuse calls out of order"),
        Kind(
            "wrong-registers", "every register of the reply is inverted before the guest gets it",
            only={Direction.TO_BACKEND: frozenset(), Direction.TO_CPU: frozenset({"reply"})},
        ),
        Kind(
            "refuse-memory", "guest RAM cannot be mapped, and the back end's memory requests are refused",
            only={Direction.TO_BACKEND: frozenset({"hello", "memory_result"}), Direction.TO_CPU: frozenset()},
        ),
        Kind("stop", "the back end's process gets SIGSTOP, and SIGCONT after a time", "seconds"),
        Kind("kill", "the back end's process gets SIGKILL"),
    )
}  # fmt: skip
SETTINGS = ("seconds", "bytes_per_second")


@dataclass(frozen=True)
class Fault:
    """One fault: what happens to which messages, and to which of those."""

    kind: Kind
    direction: Direction
    messages: frozenset[str]
    backend: str = ""
    """Empty: every back end's stream."""
    probability: float = 1.0
    every: int = 1
    at: frozenset[int] = frozenset()
    """Numbers of matching messages, from 1; empty: as probability and every say."""
    limit: int = 0
    """0: no limit."""
    seconds: float = 0.0
    bytes_per_second: int = 0


@dataclass(frozen=True)
class Scenario:
    """A seed and what may go wrong."""

    seed: int = 0
    faults: tuple[Fault, ...] = ()

    def concerning(self, backend: str) -> Sequence[tuple[int, Fault]]:
        """The faults of one back end's stream, with their places in the scenario."""
        return [(place, fault) for place, fault in enumerate(self.faults) if fault.backend in ("", backend)]

    def kills(self, backend: str) -> bool:
        """Whether a back end's process may be killed."""
        return any(fault.kind.name == "kill" for _, fault in self.concerning(backend))


def read_scenario(path: Path) -> Scenario:
    """Return what a TOML file says. Raises ScenarioError."""
    try:
        table = read_toml(path, SCENARIO_BYTES)
    except OSError as error:
        raise ScenarioError(f"{path} cannot be read ({error.strerror})", "give the path of a TOML file") from error
    except TomlError as error:
        raise ScenarioError(f"{path} is not TOML: {error.problem.what}", error.problem.remedy) from error
    return scenario_from(table, str(path))


def scenario_from(table: Mapping[str, Any], where: str) -> Scenario:
    """Return what a table says. where: for errors. Raises ScenarioError."""
    _know(table, ("seed", "fault"), where)
    seed, tables = table.get("seed", 0), table.get("fault", [])
    if not _whole(seed):
        raise ScenarioError(f"{where}: seed: {seed!r} is not a number", "give a whole one")
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        raise ScenarioError(f"{where}: fault is not a list of tables", "start each with [[fault]]")
    if len(tables) > FAULTS_MAX:
        raise ScenarioError(f"{where}: {len(tables)} faults are too many", f"give at most {FAULTS_MAX}")
    return Scenario(seed, tuple(_fault(each, f"{where}: fault[{place}]") for place, each in enumerate(tables)))


def _fault(table: Mapping[str, Any], where: str) -> Fault:
    _know(table, ("kind", "backend", "direction", "messages", "probability", "every", "at", "limit", *SETTINGS), where)
    kind = KINDS.get(table["kind"]) if isinstance(table.get("kind"), str) else None
    if kind is None:
        raise ScenarioError(f"{where}.kind: {table.get('kind')!r} is no kind of fault", f"known: {', '.join(KINDS)}")
    fits = kind.only or _LATER
    direction = _direction(table, fits, where)
    messages = table.get("messages", [])
    if not isinstance(messages, list) or not set(messages) <= fits[direction]:
        raise ScenarioError(f"{where}.messages: {messages!r} does not fit", f"known: {', '.join(sorted(fits[direction]))}")
    if not isinstance(table.get("backend", ""), str):
        raise ScenarioError(f"{where}.backend: {table['backend']!r} is not a name", "give one, such as vio")
    if len({"probability", "every", "at"} & table.keys()) > 1:
        raise ScenarioError(f"{where}: probability, every and at exclude each other", "give one")
    needless = [key for key in SETTINGS if key in table and key != kind.setting]
    if needless:
        raise ScenarioError(f"{where}.{needless[0]}: {kind.name} has no use for it", "take it away")
    return Fault(
        kind, direction, frozenset(messages) or fits[direction], table.get("backend", ""),
        probability=_number(table, "probability", 1.0, 0.0, 1.0, where),
        every=int(_number(table, "every", 1, 1, 1 << 32, where, whole=True)),
        at=_places(table.get("at", []), where),
        limit=int(_number(table, "limit", 0, 0, 1 << 32, where, whole=True)),
        seconds=_number(table, "seconds", None if kind.setting == "seconds" else 0.0, 0.0, SECONDS_MAX, where),
        bytes_per_second=int(
            _number(table, "bytes_per_second", None if kind.setting == "bytes_per_second" else 0, 0, 1 << 40, where, whole=True)
        ),
    )  # fmt: skip


def _direction(table: Mapping[str, Any], fits: Mapping[Direction, frozenset[str]], where: str) -> Direction:
    possible = [direction for direction in Direction if fits[direction]]
    given = table.get("direction", possible[0] if len(possible) == 1 else None)
    if given not in possible:
        raise ScenarioError(f"{where}.direction: {given!r} does not fit", f"give {' or '.join(possible)}")
    return Direction(given)


def _know(table: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    unknown = sorted(table.keys() - set(keys))
    if unknown:
        raise ScenarioError(f"{where}: {unknown[0]} is not a setting", f"known: {', '.join(keys)}")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(
    table: Mapping[str, Any], key: str, default: float | None, least: float, most: float, where: str, *, whole: bool = False
) -> float:
    value = table.get(key, default)
    fits = _whole(value) or (isinstance(value, float) and not whole)
    if not fits or not least <= value <= most:
        raise ScenarioError(f"{where}.{key}: {value!r} does not fit", f"give a number from {least:g} to {most:g}")
    return float(value) if not whole else int(value)


def _places(value: Any, where: str) -> frozenset[int]:
    if not isinstance(value, list) or not all(_whole(each) and each > 0 for each in value):
        raise ScenarioError(f"{where}.at: {value!r} does not fit", "give a list of numbers from 1")
    return frozenset(value)
