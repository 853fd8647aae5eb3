# SPDX-License-Identifier: GPL-2.0-or-later
"""The RTAS calls that read and write NVRAM (LoPAPR 7.3.1)."""

from __future__ import annotations

import structlog

from splitvisor.backend import Call, Mirrored, Result, RtasCall
from splitvisor.backend.vio import VioSession
from splitvisor.papr.codes import RtasStatus
from vio_service.console.vm_consoles import VmConsoles
from vio_service.devices.nvram.device import Nvram

FETCH = "nvram-fetch"

Bus = VioSession[VmConsoles]

log = structlog.get_logger()


def _nvram_range(session: Bus, offset: int, length: int) -> tuple[Nvram | None, RtasStatus]:
    """Find the VM's NVRAM and check a range of it."""
    nvrams = session.bus.all(Nvram)
    if not nvrams:
        return None, RtasStatus.HARDWARE_ERROR
    if offset + length > len(nvrams[0].contents):
        return None, RtasStatus.PARAMETER_ERROR
    return nvrams[0], RtasStatus.SUCCESS


async def nvram_fetch(session: Bus, call: Call) -> Result:
    """Copy from NVRAM to guest memory: offset, address, length; returns the number of bytes."""
    offset, address, length = call.arguments
    nvram, status = _nvram_range(session, offset, length)
    if nvram is None:
        return Result(returns=(status, 0))
    await session.vm.memory.write(address, nvram.contents[offset : offset + length])
    return Result(returns=(RtasStatus.SUCCESS, length))


async def nvram_store(session: Bus, call: Call) -> Result:
    """Copy from guest memory to NVRAM: offset, address, length; returns the number of bytes."""
    offset, address, length = call.arguments
    nvram, status = _nvram_range(session, offset, length)
    if nvram is None:
        return Result(returns=(status, 0))
    data = await session.vm.memory.read(address, length)
    try:
        await nvram.store(offset, data)
    except OSError as error:
        log.error("nvram not stored", path=str(nvram.path), reason=error.strerror)
        return Result(returns=(RtasStatus.HARDWARE_ERROR, 0))
    call.mirror_write(FETCH, offset, data)
    return Result(returns=(RtasStatus.SUCCESS, length))


def _contents(session: Bus) -> bytes:
    return next((nvram.contents for nvram in session.bus.all(Nvram)), b"")


MACHINE_CALLS = (
    RtasCall(
        FETCH,
        nvram_fetch,
        section="LoPAPR 7.3.1.1",
        arguments=3,
        returns=2,
        note="answered from a copy: SLOF reads byte by byte, 6,800 times until its prompt",
        mirrored=Mirrored(_contents),
    ),
    RtasCall("nvram-store", nvram_store, section="LoPAPR 7.3.1.2", arguments=3, returns=2),
)
"""Of the machine as a whole: they do not say which NVRAM they mean."""
