# SPDX-License-Identifier: GPL-2.0-or-later
"""The client service with which the firmware of a machine without a kernel has a program loaded from a device."""

from __future__ import annotations

from collections.abc import Sequence

from of_client_service.boot.process import BootProcess
from of_client_service.client_interface import ClientCall, ClientInterface, ClientService

AGAIN = (0, 0, 0, 0)


async def _boot_from_device(of: ClientInterface, call: ClientCall) -> Sequence[int]:
    if of.boot is None:
        of.boot = BootProcess(of)
    program = await of.boot.step(call.trap)
    return AGAIN if program is None else (program.entry, program.toc, *program.initrd)


SERVICES = (
    ClientService(
        "splitvisor,boot",
        _boot_from_device,
        0,
        4,
        "-",
        note="the firmware's own: entry and r2 of the program to start, initial RAM disk; 0 means to ask again",
    ),
)
