# SPDX-License-Identifier: GPL-2.0-or-later
"""Client services that pass control or ask about the firmware itself (IEEE 1275 6.3.2.1, 6.3.2.5 to 6.3.2.7)."""

from __future__ import annotations

import time
from collections.abc import Sequence

from of_client_service.client_interface import FAILED, MAX_PATH, BootRequest, ClientCall, ClientInterface, ClientService
from of_client_service.device_path import resolve
from splitvisor.backend import Support
from splitvisor.rpc import device_tree_pb2 as dt
from splitvisor.rpc import trap_pb2 as pb

MAX_BOOT_SPECIFIER = 2048
"""A device specifier and a command line."""
MAX_FORTH = 256
WORDS = {
    "power-off": pb.MACHINE_ACTION_KIND_POWER_OFF,
    "shut-down": pb.MACHINE_ACTION_KIND_POWER_OFF,
    "poweroff": pb.MACHINE_ACTION_KIND_POWER_OFF,
    "reset-all": pb.MACHINE_ACTION_KIND_RESET,
}
"""The Forth that there is: what GRUB's halt and reboot say, which go on for ever when they are refused."""


def _milliseconds(of: ClientInterface, call: ClientCall) -> int:
    return int((time.monotonic() - of.started) * 1000) & 0xFFFF_FFFF


async def _boot(of: ClientInterface, call: ClientCall) -> Sequence[int]:
    specifier = await of.string(call.arguments[0], MAX_BOOT_SPECIFIER)
    device, _, arguments = specifier.strip().partition(" ")
    found = resolve(of.tree.root, device[:MAX_PATH])
    of.boot_request = BootRequest(found.canonical if found else device, arguments.strip())
    of.say(call.trap, f"boot {specifier.strip()}")
    call.trap.machine_action(pb.MACHINE_ACTION_KIND_RESET, "client program called boot")
    return ()


def _enter(of: ClientInterface, call: ClientCall) -> Sequence[int]:
    of.say(call.trap, "Open Firmware: there is no user interface to enter; going on")
    return ()


def _exit(of: ClientInterface, call: ClientCall) -> Sequence[int]:
    of.say(call.trap, "Open Firmware: client program exited")
    call.trap.machine_action(pb.MACHINE_ACTION_KIND_POWER_OFF, "client program exited")
    return ()


def _exception(of: ClientInterface, call: ClientCall) -> Sequence[int]:
    vector, srr0, srr1, dar = call.arguments
    reason = f"exception {vector:#x} before the operating system has its own vectors: {srr0=:#x} {srr1=:#x} {dar=:#x}"
    of.say(call.trap, f"Open Firmware: {reason}")
    call.trap.machine_action(pb.MACHINE_ACTION_KIND_CRASH, reason)
    return ()


async def _interpret(of: ClientInterface, call: ClientCall) -> int:
    command = (await of.string(call.arguments[0], MAX_FORTH)).strip() if call.arguments else ""
    action = WORDS.get(command)
    if action is None:
        return FAILED
    call.trap.machine_action(action, f"client program interpreted {command}")
    return 0


async def _quiesce(of: ClientInterface, call: ClientCall) -> Sequence[int]:
    # No end of the services: IEEE 1275 has no such call, and the firmwares that have it, SLOF and VOF, answer after it.
    await of.store_tree(dt.TREE_ORIGIN_QUIESCE)
    return ()


SERVICES = (
    ClientService(
        "boot",
        _boot,
        1,
        0,
        "6.3.2.5",
        Support.PARTIAL,
        "resets with bootpath and bootargs; a machine without a kernel then boots from there",
    ),
    ClientService("enter", _enter, 0, 0, "6.3.2.5", Support.PARTIAL, "returns: there is no user interface"),
    ClientService("exit", _exit, 0, 0, "6.3.2.5", note="powers the machine off"),
    ClientService("interpret", _interpret, None, None, "6.3.2.6", Support.PARTIAL, "no Forth but " + ", ".join(WORDS)),
    ClientService("milliseconds", _milliseconds, 0, 1, "6.3.2.7"),
    ClientService(
        "quiesce",
        _quiesce,
        0,
        0,
        "as in SLOF",
        note="stores the tree as the operating system will see it; services go on after it",
    ),
    ClientService("splitvisor,exception", _exception, 4, 0, "-", note="the firmware's own vectors report here"),
)
