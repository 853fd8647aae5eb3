# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that calls anything with anything: every call returns, and every service lives.

SPLITVISOR_RANDOM_CALLS sets how many (20,000), SPLITVISOR_RANDOM_SEED where they start.
"""

from __future__ import annotations

import os
import random
import struct
from collections import Counter
from dataclasses import replace

import pytest

from hcall_service.session import PlatformSession
from of_client_service.client_services import CLIENT_SERVICES
from splitvisor.backend import RtasCall
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from splitvisor.testing import SCRIPTED, ScriptedGuest, StartMachine
from vio_service.session import CALLS as VIO_CALLS

pytest_plugins = ["splitvisor.testing"]

CALLS = int(os.environ.get("SPLITVISOR_RANDOM_CALLS", "20000"))
SEED = int(os.environ.get("SPLITVISOR_RANDOM_SEED", "1"))
BATCH = 5000
TOKENS = [*range(0, 0x500, 4), *range(0xF000, 0xF010)]
WITH_BLOCKS = (Hcall.H_RTAS, Hcall.H_OF_CLIENT)
SLEEP = frozenset({Hcall.H_CEDE, Hcall.H_JOIN, Hcall.H_CONFER})
"""These wait for somebody, and nobody is there."""
INTERRUPT = frozenset({Hcall.H_SIGNAL_SYS_RESET})
"""These lead the guest, which takes no interrupts, away from its calls."""
LATER = frozenset({Hcall.H_WATCHDOG})
"""These may end the machine after a while; test_watchdog_timers.py has them."""
END = frozenset(
    (
        "power-off",
        "system-reboot",
        "ibm,os-term",
        "stop-self",
        "exit",
        "boot",
        "quiesce",
        "enter",
        "splitvisor,exception",
        "interpret",
    )
)
"""These end the machine, or what is tested."""
RTAS = [call.name for calls in (PlatformSession.calls, VIO_CALLS) for call in calls if isinstance(call, RtasCall)]
BLOCKS, BLOCK_BYTES = 1024, 64
FREE_RAM = 16 << 20
"""The guest itself is below. What it overwrites of the firmware does not matter to it: it takes no interrupts."""
RAM_EDGES = (SCRIPTED.memory - 4, SCRIPTED.memory, 1 << 32, 1 << 60, 1 << 63, (1 << 64) - 1, 0xC000_0000_0000_0000 + FREE_RAM)


def argument(source: random.Random, blocks: int) -> int:
    """Nonsense, small numbers, addresses that mean something, edges."""
    match source.randrange(6):
        case 0:
            return source.getrandbits(64) | 1 << 40
        case 1:
            return source.randrange(0x1000)
        case 2 | 3:
            return blocks + source.randrange(BLOCKS) * BLOCK_BYTES
        case 4:
            return source.randrange(FREE_RAM, SCRIPTED.memory)
        case _:
            return source.choice(RAM_EDGES)


def parameter_blocks(source: random.Random, address: int, rtas_tokens: list[int]) -> bytes:
    """Names, and blocks {RTAS token or a name's address, counts, arguments}, in turn."""
    services = [name for name in CLIENT_SERVICES if name not in END]
    made = b""
    for number in range(BLOCKS):
        if number % 2 == 0:
            name = source.choice((*services, *RTAS, "/", "/vdevice", "/chosen", "reg", "stdout"))
            made += name.encode().ljust(BLOCK_BYTES, b"\0")
            continue
        first = source.choice(rtas_tokens) if source.random() < 0.5 else address + source.randrange(0, BLOCKS, 2) * BLOCK_BYTES
        words = (argument(source, address) & 0xFFFF_FFFF for _ in range(13))
        made += struct.pack(">16I", first, source.randrange(8), source.randrange(6), *words)
    return made


@pytest.mark.parametrize("shared", [True, False], ids=["shared-memory", "through-streams"])
def test_every_call_returns_and_every_service_lives(start_machine: StartMachine, shared: bool) -> None:
    source = random.Random(SEED + shared)
    machine = start_machine(config=replace(SCRIPTED, shared_memory=shared))
    guest = machine.guest
    blocks = guest.allocate(BLOCKS * BLOCK_BYTES)
    rtas_tokens = [token(guest, name) for name in RTAS if name not in END]
    tokens = [each for each in TOKENS if each not in SLEEP | INTERRUPT | LATER]
    results: Counter[int] = Counter()
    for start in range(0, CALLS, BATCH):
        guest.memory[blocks : blocks + BLOCKS * BLOCK_BYTES] = parameter_blocks(source, blocks, rtas_tokens)
        calls = []
        for _ in range(min(BATCH, CALLS - start)):
            chosen = source.choice(WITH_BLOCKS) if source.random() < 0.2 else source.choice(tokens)
            call = [chosen, *(argument(source, blocks) for _ in range(9))]
            if chosen in WITH_BLOCKS:
                call[1] = blocks + (source.randrange(BLOCKS) | 1) * BLOCK_BYTES
            calls.append(call)
        answers = guest.hcalls(calls, timeout=120.0)
        results.update(answer.result for answer in answers)
    assert sum(results.values()) == CALLS
    assert {H.SUCCESS, H.FUNCTION, H.PARAMETER} <= results.keys()
    status = machine.status()
    assert len([each for each in status.calls if each.count]) > 40, "hardly any call was one"
    assert [(each.name, each.attached, each.reconnects) for each in status.backends if not each.attached or each.reconnects] == []
    assert all(machine.services.alive(name) for name in machine.services.addresses)


def token(guest: ScriptedGuest, name: str) -> int:
    value = guest.property("/rtas", name)
    assert value is not None, name
    return int.from_bytes(value, "big")
