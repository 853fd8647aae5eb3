# SPDX-License-Identifier: GPL-2.0-or-later
"""splitvisor.testing: a machine for a test, and a guest that does what it is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import grpc
import pytest

from splitvisor.backend import Backend, Call, Hypercall, Posted, Result, RtasCall, Session, Vm
from splitvisor.declarations.guest_memory import GuestAddressError
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from splitvisor.rpc import machine_pb2
from splitvisor.testing import (
    SCRIPTED,
    BackendProgram,
    GuestError,
    MachineStartError,
    RunningMachine,
    ScriptedGuest,
    ServedBackend,
    StartMachine,
    Traps,
)

pytest_plugins = ["splitvisor.testing"]

H_SUM, H_LOG, H_FAIL, H_PEEK = 0xF180, 0xF184, 0xF188, 0xF18C
UNIT = 1


class ProbeSession(Session):
    """A little of everything."""

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm)
        self.closed = False

    def sum(self, call: Call) -> Result:
        return Result(outputs=(sum(call.arguments) & (1 << 64) - 1,))

    def log(self, _call: Call) -> int:
        return H.SUCCESS

    async def fail(self, _call: Call) -> int:
        raise RuntimeError("on purpose")

    async def peek(self, call: Call) -> Result:
        return Result(outputs=await self.vm.memory.read_words(call.arguments[0], 1))

    def swap(self, call: Call) -> Result:
        return Result(returns=(0, *reversed(call.arguments)))

    async def close(self) -> None:
        self.closed = True

    posted = Posted(4096, key_argument=0, size_argument=1, max_size=16, key_values=lambda _session: (UNIT,))
    calls: tuple[Hypercall | RtasCall, ...] = (
        Hypercall(H_SUM, sum, arguments=9, section="tests", name="H_SUM"),
        Hypercall(H_LOG, log, arguments=3, section="tests", name="H_LOG", posted=posted),
        Hypercall(H_FAIL, fail, arguments=0, section="tests", name="H_FAIL"),
        Hypercall(H_PEEK, peek, arguments=1, section="tests", name="H_PEEK"),
        RtasCall("test,swap", swap, section="tests", arguments=2, returns=3),
    )


class OtherSession(Session):
    """Claims what ProbeSession has."""

    calls = (Hypercall(H_SUM, lambda _session, _call: H.SUCCESS, arguments=0, section="tests", name="H_SUM"),)


@pytest.fixture
def backends() -> Sequence[Backend]:
    return [Backend("probe", ProbeSession)]


def test_registers_go_there_and_come_back(guest: ScriptedGuest) -> None:
    result, outputs = guest.hcall(H_SUM, *range(1, 9), -1)
    assert result == H.SUCCESS
    assert outputs == (35, *range(2, 9), (1 << 64) - 1)
    assert guest.hcall(0x7FFC).result == H.FUNCTION


def test_many_calls_go_in_one_loop(guest: ScriptedGuest, traps: Traps) -> None:
    answers = guest.hcalls([(H_SUM, number, number) for number in range(100)])
    assert [outputs[0] for _, outputs in answers] == list(range(0, 200, 2))
    assert len(traps.named("H_SUM")) == 100
    assert len(guest.hcalls([(Hcall.H_CPPR, 0)] * 14_000)) == 14_000, "more than one table"


def test_rtas_and_client_calls_take_words_texts_and_bytes(guest: ScriptedGuest, traps: Traps) -> None:
    assert guest.rtas("test,swap", 1, 2, returns=3) == (0, 2, 1)
    assert guest.rtas("test,swap", 1, returns=3)[0] == -3
    assert [trap.arguments for trap in traps] == [(1, 2)]
    [root] = guest.client("finddevice", "/")
    [name_end] = guest.client("peer", 0)
    assert root == name_end
    assert guest.property("/chosen", "bootargs") == b"\0"
    assert guest.property("/nothing", "x") is None
    assert guest.property("/", "nothing") is None
    with pytest.raises(GuestError, match="no RTAS call 'test,nothing'"):
        guest.rtas("test,nothing")
    with pytest.raises(GuestError, match="no service 'nothing'"):
        guest.client("nothing")


def test_memory_is_the_guests(guest: ScriptedGuest) -> None:
    place = guest.place(bytes(64))
    guest.hcall(Hcall.H_LOGICAL_CI_STORE, 8, place + 8, 0x0123_4567_89AB_CDEF)
    assert guest.memory[place + 8 : place + 16].hex() == "0123456789abcdef"
    guest.memory[place : place + 4] = b"\1\2\3\4"
    assert guest.hcall(Hcall.H_LOGICAL_CI_LOAD, 4, place).outputs[0] == 0x0102_0304
    assert len(guest.memory) == SCRIPTED.memory
    assert guest.allocate(1, align=4096) % 4096 == 0
    with pytest.raises(ValueError, match="3 bytes for a range of 4"):
        guest.memory[place : place + 4] = b"abc"
    with pytest.raises(GuestError, match="no 16777216 bytes left"):
        guest.allocate(16 << 20)


def test_posted_calls_are_waited_for(guest: ScriptedGuest, traps: Traps) -> None:
    assert guest.hcall(H_LOG, UNIT, 8, 7).result == H.SUCCESS
    [trap] = traps.wait_for("H_LOG")
    assert (trap.backend, trap.vcpu, trap.arguments, trap.result) == ("probe", 0, (UNIT, 8, 7), 0)
    with pytest.raises(AssertionError, match="H_SUM was called 0 times, not 1; called: H_LOG"):
        traps.wait_for("H_SUM", timeout=0.01)
    traps.clear()
    assert len(traps) == 0


def test_what_a_handler_raises_is_told(guest: ScriptedGuest, traps: Traps) -> None:
    assert guest.hcall(H_FAIL).result == H.HARDWARE
    [trap] = traps
    assert isinstance(trap.error, RuntimeError)
    assert trap.result == H.HARDWARE


def test_a_back_end_that_starts_anew_is_attached_again(
    guest: ScriptedGuest, backend: ServedBackend, machine: RunningMachine
) -> None:
    first = machine.session()
    assert guest.hcall(H_SUM, 1).outputs[0] == 1
    backend.stop()
    assert isinstance(first, ProbeSession)
    assert first.closed
    backend.start()
    assert guest.hcall(H_SUM, 2).outputs[0] == 2
    assert machine.session() is not first


def test_a_service_that_is_killed_is_started_again_and_the_guest_goes_on(guest: ScriptedGuest, machine: RunningMachine) -> None:
    assert guest.rtas("get-time-of-day", returns=8)[0] == 0
    machine.services.kill("hcall")
    assert not machine.services.alive("hcall")
    machine.services.ensure()
    assert guest.rtas("get-time-of-day", returns=8)[0] == 0
    reconnects = {each.name: each.reconnects for each in machine.status().backends}
    assert reconnects == {"hcall_service": 1, "vio_service": 0, "of_client_service": 0, "probe": 0, "script": 0}
    assert machine.calls()["get-time-of-day"] == 2


def test_an_address_outside_ram_is_told_as_the_guest_gets_it(guest: ScriptedGuest, traps: Traps) -> None:
    assert guest.hcall(H_PEEK, SCRIPTED.memory).result == H.PARAMETER
    assert traps[0].result == H.PARAMETER
    assert isinstance(traps[0].error, GuestAddressError)


def test_calls_that_do_not_come_back_say_why(guest: ScriptedGuest, machine: RunningMachine) -> None:
    with pytest.raises(GuestError, match="the machine was reset"):
        guest.rtas("system-reboot")
    assert guest.hcall(H_SUM, 3).outputs[0] == 3, "it starts anew"
    with pytest.raises(GuestError, match="the machine ended"):
        guest.rtas("power-off", 0, 0)
    assert machine.wait_for_state(machine_pb2.MACHINE_STATE_POWERED_OFF)
    with pytest.raises(AssertionError, match="POWERED_OFF, not MACHINE_STATE_RUNNING"):
        machine.wait_for_state(machine_pb2.MACHINE_STATE_RUNNING, timeout=0)


def test_a_wait_for_nothing_times_out_and_the_guest_goes_on_later(guest: ScriptedGuest, machine: RunningMachine) -> None:
    machine.pause()
    with pytest.raises(TimeoutError):
        guest.hcall(H_SUM, 1, timeout=0.1)
    machine.resume()
    assert guest.hcall(H_SUM, 2).outputs[0] == 2


def test_two_back_ends_that_claim_a_call_are_both_named(start_machine: StartMachine) -> None:
    with pytest.raises(MachineStartError, match=r"H_SUM.*claimed by probe and by other") as raised:
        start_machine([Backend("probe", ProbeSession), Backend("other", OtherSession)])
    assert raised.value.code is grpc.StatusCode.FAILED_PRECONDITION


def test_a_back_end_may_refuse_a_vm_and_say_why(start_machine: StartMachine) -> None:
    def refuse(vm: Vm) -> Session:
        raise ValueError(f"{vm.name} has {vm.vcpus} vCPU; this device wants two")

    with pytest.raises(MachineStartError, match=r"back end picky at unix:.*: test-\d+ has 1 vCPU; this device wants two"):
        start_machine([Backend("picky", refuse)])


def test_as_many_back_ends_as_a_machine_may_have(start_machine: StartMachine) -> None:
    def session_with(token: int) -> Callable[[Vm], Session]:
        answer = Result(outputs=(token,))
        call = Hypercall(token, lambda _session, _call: answer, arguments=0, section="tests", name=f"H_{token:X}")
        return type("OneCall", (Session,), {"calls": (call,)})

    tokens = range(0xF200, 0xF200 + 15 * 4, 4)  # And the script's own.
    guest = start_machine([Backend(f"b{token:x}", session_with(token)) for token in tokens]).guest
    assert [guest.hcall(token).outputs[0] for token in tokens] == list(tokens)


def test_a_program_that_ends_at_once_is_told_with_its_words(start_machine: StartMachine) -> None:
    program = BackendProgram("broken", ["/bin/sh", "-c", "echo no such luck >&2; exit 3", "sh"])
    with pytest.raises(AssertionError, match="broken ended with 3:\nno such luck"):
        start_machine([program])
