# SPDX-License-Identifier: GPL-2.0-or-later
"""Several back ends own one call, each for its own keys; keys change while the machine runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from cpu_service.routing.registry import RegistryError
from cpu_service.routing.router import CallCount
from splitvisor.backend import Call, Hypercall, Key, Operand, Posted, Result, RtasCall, Vm
from splitvisor.papr.codes import H, RtasStatus
from tests.component.test_trap_router import Routed
from tests.component.trap_backend import CREDIT, MAX_SIZE, RecordingSession, ThreadBackend
from tests.component.trap_client import wait_until

H_WHO, H_SAY = 0xF300, 0xF304
BLOCK = 0x1000


class DeviceSession(RecordingSession):
    """Devices at addresses; every call says which process has the device, and which device it is."""

    first: ClassVar[int]

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm)
        self.owned: list[int | range] = [self.first, range(self.first + 0x10, self.first + 0x20)]
        self.heard: list[int] = []

    def who(self, call: Call) -> Result:
        return Result(outputs=(self.first, call.arguments[0]))

    def say(self, call: Call) -> int:
        self.heard.append(call.arguments[2])
        return H.SUCCESS

    def connector(self, call: Call) -> Result:
        return Result(returns=(0, self.first))

    def config(self, call: Call) -> Result:
        return Result(returns=(0, call.arguments[0], self.first))

    def by_address(self) -> list[int | range]:
        return self.owned

    def by_buid(self) -> list[int | range]:
        return [self.first << 32 | 7]

    def by_address_posted(self) -> Sequence[int]:
        return [each for each in self.owned if isinstance(each, int)]

    calls: tuple[Hypercall | RtasCall, ...] = (
        Hypercall(H_WHO, who, arguments=2, section="tests", name="H_WHO", key=Key(by_address, no_owner_result=H.NOT_FOUND)),
        Hypercall(
            H_SAY, say, arguments=3, section="tests", name="H_SAY", key=Key(by_address),
            posted=Posted(CREDIT, key_argument=0, size_argument=1, max_size=MAX_SIZE, key_values=by_address_posted),
        ),
        RtasCall(
            "test,connector", connector, section="tests", arguments=1, returns=2,
            operands=(Operand(8, argument=0),), key=Key(by_address, word=(0, 1)),
        ),
        RtasCall("test,config", config, section="tests", arguments=3, returns=3, key=Key(by_buid, argument_pair=1)),
    )  # fmt: skip


class LowSession(DeviceSession):
    first = 0x100


class HighSession(DeviceSession):
    first = 0x200


class TerminalSession(RecordingSession):
    """The only owner of a call that is posted for the terminals that there are."""

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm)
        self.terminals = [1]

    calls: tuple[Hypercall | RtasCall, ...] = (
        Hypercall(
            H_SAY, RecordingSession.append, arguments=3, section="tests", name="H_SAY",
            posted=Posted(CREDIT, key_argument=0, size_argument=1, max_size=MAX_SIZE, key_values=lambda it: it.terminals),
        ),
    )  # fmt: skip


class Clash(DeviceSession):
    """Owns a key of LowSession's."""

    first = 0x118


@pytest.fixture
def low(short_path: Path) -> Iterator[ThreadBackend]:
    backend = ThreadBackend(short_path, "low", LowSession)
    yield backend
    backend.close()


@pytest.fixture
def high(short_path: Path) -> Iterator[ThreadBackend]:
    backend = ThreadBackend(short_path, "high", HighSession)
    yield backend
    backend.close()


@pytest.fixture
def routed(low: ThreadBackend, high: ThreadBackend) -> Iterator[Routed]:
    routed = Routed(low, high)
    yield routed
    routed.close()


def who(routed: Routed, key: int) -> tuple[int, int]:
    result = routed.hypercall(H_WHO, key, 0)
    return result, routed.scheduler.loaded.gpr[4]


def config(routed: Routed, name: str, *arguments: int, returns: int) -> tuple[int, ...]:
    """Make an RTAS call by its name; the status signed, as a guest takes it."""
    token = next(call.token for call in routed.registry.rtas_calls() if call.name == name)
    result, words = routed.rtas(token, *arguments, returns=returns)
    assert result == H.SUCCESS
    assert words.pop() == 0xDEAD_BEEF, "nothing is written behind the return words"
    return (words[0] - (words[0] >> 31 << 32), *words[1:])


def session(backend: ThreadBackend) -> DeviceSession:
    found = backend.session()
    assert isinstance(found, DeviceSession)
    return found


def own(backend: ThreadBackend, *keys: int | range) -> None:
    """Let a back end have these devices from now on."""

    async def change() -> None:
        session(backend).owned = list(keys)
        session(backend).vm.inventory_changed()

    backend.run(change())


def test_a_key_selects_the_owner(routed: Routed) -> None:
    assert [who(routed, key) for key in (0x100, 0x110, 0x11F, 0x200, 0x21F)] == [
        (H.SUCCESS, 0x100), (H.SUCCESS, 0x100), (H.SUCCESS, 0x100), (H.SUCCESS, 0x200), (H.SUCCESS, 0x200),
    ]  # fmt: skip


def test_the_upper_half_of_a_register_is_ignored(routed: Routed) -> None:
    assert who(routed, 1 << 63 | 0x100) == (H.SUCCESS, 0x100)


@pytest.mark.parametrize("key", [0, 0xFF, 0x101, 0x10F, 0x120, 0x1FF, 0x220, 1 << 32 | 0x101, (1 << 64) - 1])
def test_a_key_of_nobody_gets_the_calls_own_refusal(routed: Routed, key: int) -> None:
    assert who(routed, key)[0] == H.NOT_FOUND
    assert routed.hypercall(H_SAY, key, 1, 2) == H.PARAMETER


def test_calls_are_counted_for_each_owner(routed: Routed, low: ThreadBackend, high: ThreadBackend) -> None:
    for key in (0x100, 0x200, 0x200, 0x300):
        who(routed, key)
    rows = {row.owner: row for row in routed.router.call_counts() if row.name == "H_WHO"}
    assert {owner: row.count for owner, row in rows.items()} == {low.address: 1, high.address: 2, "nobody": 1}
    assert rows[high.address].seconds > 0
    assert isinstance(rows[low.address], CallCount)
    assert {timed.owner for timed in routed.router.times.all()} == {low.address, high.address}


def test_posted_calls_reach_the_owner_of_their_key(routed: Routed, low: ThreadBackend, high: ThreadBackend) -> None:
    for key, value in ((0x100, 1), (0x200, 2), (0x100, 3)):
        assert routed.hypercall(H_SAY, key, 1, value) == H.SUCCESS
    wait_until(lambda: session(low).heard == [1, 3] and session(high).heard == [2], "both heard theirs")
    assert [link.posted.traps for link in routed.links] == [2, 1]


def test_a_word_in_memory_selects_the_owner(routed: Routed) -> None:
    for word, answer in ((0x100, (0, 0x100)), (0x210, (0, 0x200)), (0x300, (RtasStatus.PARAMETER_ERROR, 0))):
        routed.ram.write(BLOCK, (0).to_bytes(4, "big") + word.to_bytes(4, "big"))
        assert config(routed, "test,connector", BLOCK, returns=2) == answer
    for outside in (routed.ram.size - 4, routed.ram.size, 0xFFFF_FFF0):
        assert config(routed, "test,connector", outside, returns=2) == (RtasStatus.PARAMETER_ERROR, 0)


def test_two_arguments_select_the_owner(routed: Routed) -> None:
    assert config(routed, "test,config", 5, 0x100, 7, returns=3) == (0, 5, 0x100)
    assert config(routed, "test,config", 5, 0x200, 7, returns=3) == (0, 5, 0x200)
    assert config(routed, "test,config", 5, 0x200, 8, returns=3) == (RtasStatus.PARAMETER_ERROR, 0, 0)
    assert config(routed, "test,config", 5, 0x200, returns=3) == (RtasStatus.PARAMETER_ERROR, 0, 0)


def test_keys_come_and_go_while_the_machine_runs(routed: Routed, low: ThreadBackend, high: ThreadBackend) -> None:
    own(low, 0x100)
    wait_until(lambda: who(routed, 0x110)[0] == H.NOT_FOUND, "the keys are let go")
    own(high, 0x200, 0x110)
    wait_until(lambda: who(routed, 0x110) == (H.SUCCESS, 0x200), "another has one of them")
    assert who(routed, 0x100) == (H.SUCCESS, 0x100)
    posted = routed.links[1].posted.traps
    assert routed.hypercall(H_SAY, 0x110, 1, 9) == H.SUCCESS
    assert routed.links[1].posted.traps == posted + 1, "a device that was added is posted to"


def test_a_claim_of_anothers_key_ends_the_claimants_stream_only(routed: Routed, low: ThreadBackend, high: ThreadBackend) -> None:
    attaches = low.connections
    own(high, 0x200, 0x100)
    wait_until(lambda: not routed.links[1].attached, "its stream is ended")
    assert who(routed, 0x100) == (H.SUCCESS, 0x100)
    assert low.connections == attaches
    own(high, 0x200)
    wait_until(lambda: routed.links[1].attached, "it attaches again once it claims its own keys only")
    assert who(routed, 0x200) == (H.SUCCESS, 0x200)


def test_keys_may_change_while_the_connection_is_away(routed: Routed, high: ThreadBackend) -> None:
    high.drop(refuse=True)
    wait_until(lambda: not routed.links[1].attached, "it is away")
    own(high, 0x240)
    high.allow()
    wait_until(lambda: routed.links[1].attached, "it is back")
    assert who(routed, 0x240) == (H.SUCCESS, 0x200)
    assert who(routed, 0x200)[0] == H.NOT_FOUND


def test_a_lost_connection_of_one_owner_is_nothing_to_the_other(routed: Routed, low: ThreadBackend, high: ThreadBackend) -> None:
    high.drop(refuse=True)
    wait_until(lambda: not routed.links[1].attached, "it is away")
    assert who(routed, 0x100) == (H.SUCCESS, 0x100)
    high.allow()
    assert who(routed, 0x200) == (H.SUCCESS, 0x200), "the call waited for its owner"


def test_one_key_with_two_owners_does_not_start(short_path: Path, low: ThreadBackend) -> None:
    clash = ThreadBackend(short_path, "clash", Clash)
    try:
        with pytest.raises(RegistryError, match=rf"H_WHO.*: key 0x118 is claimed by {low.address} and by {clash.address}"):
            Routed(low, clash)
    finally:
        clash.close()


def test_a_terminal_that_is_added_is_posted_to_though_the_call_has_one_owner(short_path: Path) -> None:
    backend = ThreadBackend(short_path, "terminals", TerminalSession)
    routed = Routed(backend)
    try:
        [link] = routed.links
        for tag, terminal in enumerate((1, 2)):
            assert routed.hypercall(H_SAY, terminal, 1, tag) == H.SUCCESS
        assert link.posted.traps == 1

        async def add() -> None:
            terminals = backend.session()
            assert isinstance(terminals, TerminalSession)
            terminals.terminals = [1, 2]
            terminals.vm.inventory_changed()

        backend.run(add())
        wait_until(lambda: link.offer.routes[0].posted.key_values == [1, 2], "the link knows")
        assert routed.hypercall(H_SAY, 2, 1, 2) == H.SUCCESS
        assert link.posted.traps == 2
        wait_until(lambda: backend.session().log == [0, 1, 2], "all of it arrives, in order")
    finally:
        routed.close()
        backend.close()
