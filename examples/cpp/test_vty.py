# SPDX-License-Identifier: GPL-2.0-or-later
"""The terminal in C++ beside those of vio_service, in one guest: two processes own H_PUT_TERM_CHAR, each for its unit address."""

from __future__ import annotations

import shutil
import socket
import struct
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import pytest

from examples.cpp.conftest import Connect
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.testing import BackendProgram, RunningMachine, RunningProgram, ScriptedGuest

pytest_plugins = ["splitvisor.testing"]

FIRST, OWN = 0x7100_0000, 0x7100_003C
"""vio_service's terminal, and this one: the first of the four slots at the bus's end."""
SOURCE = 0x1100 | 0x3C
DEADLINE_S = 30.0


@pytest.fixture
def terminals() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="sv-", dir="/tmp"))  # Short enough for sockets.
    yield path
    shutil.rmtree(path)


@pytest.fixture
def backends(built: Path, terminals: Path) -> Sequence[BackendProgram]:
    return [BackendProgram("vty_cpp", [built / "vty", "--terminals", terminals])]


class Terminal:
    """Somebody at a VM's terminal."""

    def __init__(self, directory: Path, vm: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(DEADLINE_S)
        self._socket.connect(f"{directory}/{vm}.vty")

    def type(self, text: bytes) -> None:
        self._socket.sendall(text)

    def expect(self, text: bytes) -> None:
        """Read until this has come, and nothing else with it."""
        got = b""
        while len(got) < len(text):
            part = self._socket.recv(len(text) - len(got))
            assert part, f"it ended after {got!r}"
            got += part
        assert got == text

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def terminal(terminals: Path, machine: RunningMachine) -> Iterator[Terminal]:
    terminal = Terminal(terminals, machine.name)
    yield terminal
    terminal.close()


def write(guest: ScriptedGuest, unit: int, text: bytes) -> int:
    return guest.hcall(Hcall.H_PUT_TERM_CHAR, unit, len(text), *struct.unpack(">QQ", text.ljust(16, b"\0"))).result


def read(guest: ScriptedGuest, unit: int) -> bytes:
    result, (length, high, low, *_) = guest.hcall(Hcall.H_GET_TERM_CHAR, unit)
    assert result == H.SUCCESS
    return struct.pack(">QQ", high, low)[:length]


def test_the_guest_has_two_terminals_from_two_processes(
    guest: ScriptedGuest, terminal: Terminal, machine: RunningMachine
) -> None:
    assert guest.property(f"/vdevice/vty@{OWN:x}", "compatible") == b"hvterm1\0"
    assert guest.property(f"/vdevice/vty@{OWN:x}", "reg") == struct.pack(">I", OWN)
    for number in range(100):
        assert write(guest, OWN, b"here%012d" % number) in (H.SUCCESS, H.BUSY)
        assert write(guest, FIRST, b"there") == H.SUCCESS
    terminal.expect(b"".join(b"here%012d" % number for number in range(100)))
    counts = {row.owner: row.count for row in machine.status().calls if row.name == "H_PUT_TERM_CHAR"}
    assert counts == {"vty_cpp": 100, "vio_service": 100}
    assert read(guest, FIRST) == read(guest, OWN) == b""


def test_what_is_typed_interrupts_the_guest_and_is_read_from_its_own_terminal(guest: ScriptedGuest, terminal: Terminal) -> None:
    guest.route_interrupt(SOURCE)
    terminal.type(b"eighteen letters..")
    assert guest.accept_interrupt() == SOURCE
    assert read(guest, FIRST) == b""
    assert [read(guest, OWN), read(guest, OWN), read(guest, OWN)] == [b"eighteen letters", b"..", b""]


def test_an_address_without_a_terminal_gets_h_parameter(guest: ScriptedGuest) -> None:
    assert [write(guest, unit, b"nobody") for unit in (OWN + 1, FIRST + 1, OWN - 1, 1)] == [H.PARAMETER] * 4
    assert guest.hcall(Hcall.H_GET_TERM_CHAR, OWN + 1).result == H.PARAMETER
    assert guest.hcall(Hcall.H_PUT_TERM_CHAR, OWN, 17, 0, 0).result == H.PARAMETER


def test_a_kill_of_it_is_nothing_to_the_other_terminal(
    guest: ScriptedGuest, terminal: Terminal, terminals: Path, backend: RunningProgram, machine: RunningMachine
) -> None:
    assert write(guest, OWN, b"before") == H.SUCCESS
    terminal.expect(b"before")
    assert read(guest, OWN) == b"", "behind it: what was written will not be written again"
    backend.kill()
    assert write(guest, FIRST, b"there") == H.SUCCESS
    assert read(guest, FIRST) == b""
    assert write(guest, OWN, b"meanwhile") == H.SUCCESS, "it is posted, and sent once somebody takes it"
    backend.start()
    assert read(guest, OWN) == b"", "behind what was posted"
    again = Terminal(terminals, machine.name)
    again.expect(b"meanwhile")
    again.close()
    reconnects = {each.name: each.reconnects for each in machine.status().backends}
    assert (reconnects["vty_cpp"], reconnects["vio_service"]) == (1, 0)


SLOTS = pb.SlotRange(first=60, count=4)


def test_posted_output_is_written_once_and_its_credit_comes_back(connect: Connect, terminals: Path) -> None:
    batch = pb.PostedBatch(
        traps=[pb.Trap(sequence=number, route=1, arguments=[OWN, 1, (64 + number) << 56, 0]) for number in (1, 2)]
    )
    for _ in range(2):
        connection = connect(slots=SLOTS)
        connection.receive()
        connection.send(posted=batch)
        assert connection.receive().acknowledge.sequence == 2
        connection.end()
    terminal = Terminal(terminals, "played")
    terminal.expect(b"AB")
    connection = connect(slots=SLOTS)
    connection.receive()
    connection.send(
        posted=pb.PostedBatch(traps=[*batch.traps, pb.Trap(sequence=3, route=1, arguments=[OWN, 1, ord("C") << 56, 0])])
    )
    terminal.expect(b"C")
    terminal.close()


def test_input_that_waits_is_pulsed_on_the_next_connection(connect: Connect, terminals: Path) -> None:
    connection = connect(slots=SLOTS)
    connection.receive()
    terminal = Terminal(terminals, "played")
    terminal.type(b"x")
    assert connection.receive().interrupt.source == SOURCE
    connection.end()
    connection = connect(slots=SLOTS)
    connection.receive()
    assert connection.receive().interrupt.source == SOURCE
    terminal.close()


def test_its_address_is_that_of_the_configuration_where_there_is_one(connect: Connect) -> None:
    offer = connect(slots=SLOTS, devices=[pb.DeviceSpec(kind="vty", unit_address=0x3000_1000)]).receive().offer
    assert [(key.first, key.last) for route in offer.routes for key in route.keys] == [(0x3000_1000, 0x3000_1000)] * 2
    assert [node.path for node in offer.nodes] == ["/vdevice/vty@30001000"]


@pytest.mark.parametrize("hello", [{}, {"slots": SLOTS, "devices": [pb.DeviceSpec(kind="disk")]}])
def test_a_vm_that_it_cannot_serve_is_refused(connect: Connect, hello: dict[str, object]) -> None:
    assert connect(**hello).fails_with() is grpc.StatusCode.INVALID_ARGUMENT
