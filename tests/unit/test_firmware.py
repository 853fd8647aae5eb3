# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs in the guest: built bytes, the firmware's entry points and vectors, the demo guest."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest

from cpu_service.engine.engine import MSR_ME, MSR_SF, PENDING_EXTERNAL
from splitvisor import firmware
from splitvisor.firmware import build
from splitvisor.papr.codes import H
from splitvisor.papr.processor import TIMEBASE_HZ
from tests.unit.guest_programs import GuestProgram

CODE = 0x100000
MTCTR_R12, BCTRL, BLR, SC_1, TRAP = 0x7D8903A6, 0x4E800421, 0x4E800020, 0x44000022, 0x7FE00008
MR_R31_R3 = 0x7C7F1B78
MASK = (1 << 64) - 1
FAR_AWAY = 0x7FFF_0000
"""What the firmware's vectors leave in the decrementer."""


def li(register: int, value: int) -> int:
    return 0x38000000 | register << 21 | value & 0xFFFF


@pytest.mark.skipif(not all(map(shutil.which, build.TOOLS)), reason="needs the cross tools: gcc-powerpc64-linux-gnu")
def test_the_committed_bytes_are_what_the_sources_give(tmp_path: Path) -> None:
    build.build(tmp_path)
    for name in build.BUILT:
        assert (tmp_path / name).read_bytes() == (build.SOURCES / name).read_bytes(), (
            f"{name}: run python -m splitvisor.firmware.build"
        )


def test_the_firmware_fits_below_its_stack_and_the_demo_is_small() -> None:
    assert firmware.ENTRY < len(firmware.FIRMWARE) <= 0x4000
    assert len(firmware.DEMO) < 16 << 10
    assert struct.pack(">5I", 0x7C641B78, 0x3C600000, 0x6063F000, 0x44000022, 0x4E800020) == firmware.RTAS_SHIM


def test_a_client_program_starts_with_the_registers_of_the_binding() -> None:
    guest = GuestProgram()
    guest.start(guest.place(CODE, SC_1))
    gpr = guest.engine.state.gpr
    assert (gpr[3], gpr[4]) == (0x700000, 0x40000)
    assert 0x1000 <= gpr[5] < len(firmware.FIRMWARE)
    assert gpr[1] % 16 == 0
    assert len(firmware.FIRMWARE) < gpr[1] < 0x10000
    assert (gpr[6], gpr[7]) == (0, 0)
    assert guest.engine.state.msr.value & MSR_SF == 0


@pytest.mark.parametrize("msr", [MSR_ME, MSR_SF | MSR_ME])
@pytest.mark.parametrize(("service", "result"), [(b"test\0", 0), (b"nothing\0", MASK)])
def test_the_client_interface_can_be_called_in_both_modes_and_keeps_registers(msr: int, service: bytes, result: int) -> None:
    guest = GuestProgram()
    array = 0x20000
    guest.ram[array : array + 20] = struct.pack(">5I", array + 32, 1, 1, array + 32, 0x55555555)
    guest.ram[array + 32 : array + 32 + len(service)] = service
    probe = GuestProgram()
    probe.start(probe.place(CODE, SC_1))
    entry = probe.engine.state.gpr[5]
    guest.place(CODE, MTCTR_R12, BCTRL, MR_R31_R3, li(3, 0x7F), SC_1)
    kept = {number: 0x1111_0000_0000 * number for number in (1, 2, *range(13, 31))}
    guest.run(CODE, {**kept, 3: 0xFFFF_FFFF_0000_0000 | array, 12: entry}, msr)
    assert guest.engine.state.gpr[31] == result
    assert {number: guest.engine.state.gpr[number] for number in kept} == kept
    assert struct.unpack_from(">i", guest.ram, array + 16) == (0 if result == 0 else -1,)


def test_a_client_program_that_returns_has_exited() -> None:
    guest = GuestProgram()
    guest.start(guest.place(CODE, BLR))
    assert guest.ended == "client program exited"
    assert b"client program exited" in guest.output


def test_an_exception_of_the_client_program_is_reported_with_its_place() -> None:
    guest = GuestProgram()
    guest.start(guest.place(CODE, TRAP))
    assert "exception 0x700" in guest.ended
    assert f"srr0={CODE:#x}" in guest.ended


@pytest.mark.parametrize("interrupt", [None, PENDING_EXTERNAL])
def test_a_rest_ends_with_interrupts_off_and_all_registers_kept(interrupt: int | None) -> None:
    guest = GuestProgram()
    guest.interrupt = interrupt or guest.interrupt
    guest.place(CODE, li(3, 0xE0), SC_1, MR_R31_R3, li(3, 0x7F), SC_1)
    kept = {number: 0x1111_0000_0000 * number for number in (0, 1, 2, *range(4, 31))}
    guest.run(CODE, kept, MSR_ME)
    assert guest.rests == 1
    assert guest.engine.state.gpr[31] == H.SUCCESS
    assert {number: guest.engine.state.gpr[number] for number in kept} == kept
    assert guest.engine.state.msr.value == MSR_ME
    assert all(0x1000_0000 < value < 0x8000_0000 for value in guest.decrementers)


def demo(typed: bytes) -> GuestProgram:
    """Run the demo guest with something typed until it ends."""
    guest = GuestProgram(typed)
    guest.start(guest.load(firmware.DEMO).entry)
    return guest


def test_the_demo_greets_with_what_the_machine_is() -> None:
    text = demo(b"off\n").output.decode()
    assert "Splitvisor's demo guest" in text
    assert "PowerPC,POWER8" in text
    assert "16 MiB" in text
    assert "2026-11-20 22:30:05 UTC" in text


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (b"help", "  cat PATH PROPERTY    a property's value"),
        (b"ls /vdevice", "  vty@71000000"),
        (b"ls /rtas", "  rtas-size"),
        (b"ls", "  interrupt-controller"),
        (b"tree /cpus", "    PowerPC,POWER8@1"),
        (b"tree", "  /"),
        (b"cat /vdevice/vty@71000000 compatible", '  "hvterm1"'),
        (b"cat /rtas rtas-size", "  0000: 0000082c"),
        (b"cat /nothing name", "There is no /nothing."),
        (b"cat / nothing", "There is no nothing."),
        (b"memory", "    from 0x0000000000600000  size 0x0000000000100000  1 MiB"),
        (b"time", "2026-11-20 22:30:05 UTC"),
        (b"echo  one   two", "one two"),
        (b"nonsense", "nonsense: unknown; try help."),
    ],
)
def test_the_demos_commands(command: bytes, answer: str) -> None:
    guest = demo(command + b"\noff\n")
    assert answer in guest.output.decode().split("> ", 1)[1].splitlines()
    assert guest.ended == "power-off"


@pytest.mark.parametrize(
    ("typed", "ended"), [(b"off\r", "power-off"), (b"reboot\r\n", "system-reboot"), (b"exit\n", "client program exited")]
)
def test_the_demo_ends_as_it_is_told(typed: bytes, ended: str) -> None:
    assert demo(typed).ended == ended


def test_the_demos_line_can_be_edited() -> None:
    guest = demo(b"junk\x15echo abx\x08c\x7fcd\n" + b"z" * 600 + b"\x15off\n")
    assert "\r\nabcd\r\n" in guest.output.decode()
    assert guest.ended == "power-off"


def test_the_demo_rests_between_looks_at_a_console_without_an_interrupt() -> None:
    guest = GuestProgram()

    def type_late(rest: int) -> None:
        if rest == 50:
            guest.typed = b"off\n"

    guest.on_rest = type_late
    guest.start(guest.load(firmware.DEMO).entry)
    assert set(guest.decrementers) == {TIMEBASE_HZ // 50, FAR_AWAY}
    assert guest.rests == 50
    assert guest.ended == "power-off"


def test_the_consoles_interrupt_wakes_the_demo() -> None:
    guest = GuestProgram(input_interrupt=0x1100)
    typed = [b"echo one\n", b"echo two\n", b"off\n"]

    def type_next(rest: int) -> None:
        guest.typed = typed.pop(0)
        assert guest.xics.pulse(0x1100)

    guest.on_rest = type_next
    guest.start(guest.load(firmware.DEMO).entry)
    assert guest.ended == "power-off"
    assert guest.rests == 3
    assert set(guest.decrementers) == {TIMEBASE_HZ, FAR_AWAY}
    assert guest.xics.accept(0) == 0xFF00_0000  # every interrupt was accepted and ended
    assert b"one\r\n" in guest.output
    assert b"two\r\n" in guest.output
