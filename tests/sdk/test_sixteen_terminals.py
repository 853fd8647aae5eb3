# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine has up to sixteen terminals, each with a console of its own; a vty-server has the console of one of them."""

from __future__ import annotations

import struct
from dataclasses import replace

from splitvisor.machine.config import Device
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from splitvisor.testing import SCRIPTED, ScriptedGuest, StartMachine

pytest_plugins = ["splitvisor.testing"]

FIRST = 0x7100_0000
TERMINALS = 15
SERVER = FIRST + TERMINALS
"""Serial devices come first."""
NOBODY = (1 << 64) - 1
PAGE_BYTES = 4096
OTHER_VM = "operator"


def put(guest: ScriptedGuest, unit: int, text: bytes) -> int:
    return guest.hcall(Hcall.H_PUT_TERM_CHAR, unit, len(text), *struct.unpack(">2Q", text.ljust(16, b"\0"))).result


def get(guest: ScriptedGuest, unit: int) -> tuple[int, bytes]:
    answer = guest.hcall(Hcall.H_GET_TERM_CHAR, unit)
    count, *words = answer.outputs[:3]
    return answer.result, struct.pack(">2Q", *words)[:count] if answer.result == H.SUCCESS else b""


def test_every_one_of_sixteen_takes_and_gives(start_machine: StartMachine) -> None:
    machine = start_machine(config=replace(SCRIPTED, devices=tuple(Device("vty") for _ in range(16))))
    for number in range(16):
        assert put(machine.guest, FIRST + number, b"0123456789abcdef") == H.SUCCESS
        assert get(machine.guest, FIRST + number) == (H.SUCCESS, b"")
    assert put(machine.guest, FIRST + 16, b"x") == H.PARAMETER


def test_a_vty_server_without_partners_finds_none(start_machine: StartMachine) -> None:
    devices = (*(Device("vty", options={"server": OTHER_VM}) for _ in range(TERMINALS)), Device("vty-server"))
    guest = start_machine(config=replace(SCRIPTED, devices=devices)).guest
    page = guest.allocate(PAGE_BYTES, align=PAGE_BYTES)
    guest.memory[page : page + 16] = bytes(16)
    assert guest.hcall(Hcall.H_VTERM_PARTNER_INFO, SERVER, NOBODY, NOBODY, page).result == H.SUCCESS
    assert struct.unpack(">QQ", guest.memory[page : page + 16]) == (NOBODY, NOBODY)
    assert guest.hcall(Hcall.H_REGISTER_VTERM, SERVER, 0, FIRST).result == H.PARAMETER
    assert guest.hcall(Hcall.H_VIO_SIGNAL, SERVER, 1).result == H.SUCCESS
    assert (put(guest, SERVER, b"x"), get(guest, SERVER)) == (H.CLOSED, (H.CLOSED, b""))
    assert guest.hcall(Hcall.H_FREE_VTERM, SERVER).result == H.SUCCESS
    for unit in (FIRST, SERVER + 1):
        assert guest.hcall(Hcall.H_FREE_VTERM, unit).result == H.PARAMETER
    assert guest.hcall(Hcall.H_VTERM_PARTNER_INFO, SERVER, NOBODY, NOBODY, page + 8).result == H.PARAMETER
    assert guest.hcall(Hcall.H_VTERM_PARTNER_INFO, SERVER, NOBODY, NOBODY, 1 << 40).result == H.PARAMETER
