# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenarios are checked, and the same seed and messages give the same faults."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from splitvisor.faults import scenario
from splitvisor.faults.scenario import KINDS, Direction, ScenarioError, read_scenario, scenario_from
from splitvisor.faults.schedule import Schedule
from splitvisor.rpc import trap_pb2 as pb

FAULTS: list[dict[str, Any]] = [
    {"kind": "jitter", "direction": "to-backend", "probability": 0.3, "seconds": 1.0},
    {"kind": "lose", "direction": "to-cpu", "messages": ["reply"], "every": 7, "limit": 3},
    {"kind": "duplicate", "direction": "to-backend", "messages": ["trap"], "at": [2, 5]},
    {"kind": "kill", "direction": "to-cpu", "backend": "hcall"},
]
MESSAGES = [(Direction.TO_BACKEND, "trap"), (Direction.TO_BACKEND, "posted"), (Direction.TO_CPU, "reply")]


def happenings(seed: int, backend: str = "vio", vm: str = "vm", messages: list[Any] | None = None) -> list[tuple[Any, ...]]:
    schedule = Schedule(scenario_from({"seed": seed, "fault": FAULTS}, "test"), backend, vm)
    return [
        (number, each.place, each.number, each.seconds)
        for number, (direction, message) in enumerate(messages or MESSAGES * 50)
        for each in schedule.look(direction, message)
    ]


def test_the_same_seed_and_messages_give_the_same_faults() -> None:
    assert happenings(7) == happenings(7)
    assert happenings(7) != happenings(8)
    assert happenings(7) != happenings(7, vm="other")


def test_one_directions_faults_do_not_depend_on_the_others_messages() -> None:
    mixed = MESSAGES * 50
    random.Random(1).shuffle(mixed)
    alone = [each for each in mixed if each[0] is Direction.TO_BACKEND]
    faults = [(place, number, seconds) for _, place, number, seconds in happenings(7, messages=mixed) if place in (0, 2)]
    assert faults == [(place, number, seconds) for _, place, number, seconds in happenings(7, messages=alone)]


def test_every_at_limit_and_backend_say_which_messages() -> None:
    found = happenings(7)
    assert [number for _, place, number, _ in found if place == 1] == [7, 14, 21]
    assert [number for _, place, number, _ in found if place == 2] == [2, 5]
    assert not [each for each in found if each[1] == 3]
    assert len([each for each in happenings(7, "hcall") if each[1] == 3]) == 50
    assert all(0 <= seconds <= 1 for _, place, _, seconds in found if place == 0)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"kind": "melt"}, "'melt' is no kind of fault; known: delay"),
        ({"kind": ["lose"]}, "is no kind of fault"),
        ({"kind": "lose"}, "direction: None does not fit; give to-backend or to-cpu"),
        ({"kind": "wrong-registers", "direction": "to-backend"}, "give to-cpu"),
        ({"kind": "lose", "direction": "to-cpu", "messages": ["trap"]}, "messages: .* does not fit"),
        ({"kind": "delay", "direction": "to-cpu"}, "seconds: None does not fit; give a number from 0 to 3600"),
        ({"kind": "delay", "direction": "to-cpu", "seconds": -1}, "seconds: -1 does not fit"),
        ({"kind": "lose", "direction": "to-cpu", "seconds": 1}, "lose has no use for it"),
        ({"kind": "lose", "direction": "to-cpu", "probability": 0.5, "every": 2}, "exclude each other"),
        ({"kind": "lose", "direction": "to-cpu", "probability": 2}, "from 0 to 1"),
        ({"kind": "lose", "direction": "to-cpu", "every": True}, "every: True"),
        ({"kind": "lose", "direction": "to-cpu", "at": [0]}, "list of numbers from 1"),
        ({"kind": "lose", "direction": "to-cpu", "backend": 1}, "is not a name"),
        ({"kind": "lose", "direction": "to-cpu", "sometimes": 1}, "sometimes is not a setting"),
    ],
)
def test_a_wrong_fault_is_one_clear_line(table: dict[str, Any], text: str) -> None:
    with pytest.raises(ScenarioError, match=text) as raised:
        scenario_from({"fault": [table]}, "s.toml")
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith("s.toml: fault[0]")


@pytest.mark.parametrize("content", ["seed = 'x'", "fault = 3", "fault = [1]", "other = 1", "seed =", "\udcff"])
def test_a_wrong_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "s.toml"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ScenarioError):
        read_scenario(path)
    with pytest.raises(ScenarioError, match="cannot be read"):
        read_scenario(tmp_path / "none.toml")


def test_a_file_is_a_text_whatever_editor_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text("seed = 3", "utf-8-sig")
    assert read_scenario(path).seed == 3
    path.write_bytes(b"seed = 3\n# caf\xe9\n")
    with pytest.raises(ScenarioError, match=r"is not TOML: byte 0xe9 is not UTF-8 \(at line 2, column 6\); save it as UTF-8$"):
        read_scenario(path)


def test_every_kind_has_a_line_in_the_documentation() -> None:
    text = (Path(__file__).resolve().parent.parent.parent / "docs" / "faults.md").read_text()
    assert [kind for kind in KINDS if f"| `{kind}` |" not in text] == []


@pytest.mark.parametrize(
    ("direction", "message"), [(Direction.TO_BACKEND, pb.AttachRequest), (Direction.TO_CPU, pb.AttachResponse)]
)
def test_faults_can_happen_to_every_message_of_the_contract(direction: Direction, message: type[Message]) -> None:
    """But for `move`: a proxy lets no connection move to a socket past it."""
    names = {field.name for field in message.DESCRIPTOR.oneofs_by_name["message"].fields} - {"move"}
    assert set(scenario.MESSAGES[direction]) == names
