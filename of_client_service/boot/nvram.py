# SPDX-License-Identifier: GPL-2.0-or-later
"""boot-device in NVRAM, where SLOF, Linux's nvram program and grub-install keep it (LoPAPR 8.4: NVRAM format).

NVRAM is a row of partitions, each with a header of 16 bytes: signature, checksum, length in units of 16 bytes, name. One of them,
"common", has variables, "name=value", each with its NUL.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from of_client_service.device_path import resolve
from of_client_service.device_tree import Package
from of_client_service.disks.scratch import BOUNCE_AT
from splitvisor.backend import Vm
from splitvisor.limits import NVRAM_MAX
from splitvisor.papr.codes import H, RtasStatus
from splitvisor.papr.hcall import Hcall

COMMON = b"common"
VARIABLE = b"boot-device="
MAX_PARTITIONS = 64
MAX_VARIABLES_BYTES = 64 << 10
MAX_DEVICES = 16
_HEADER = struct.Struct(">BxH12s")
_UNIT = 16
_DATA_AT, _DATA_BYTES = BOUNCE_AT + 0x1000, 0x1000
_ARGUMENTS, _RETURNS = 3, 2


async def boot_devices(vm: Vm, root: Package) -> Sequence[str]:
    """Return the device specifiers of boot-device; none when there is no such variable. Only inside a handler."""
    rtas, bus = resolve(root, "/rtas"), resolve(root, "/vdevice")
    token = rtas.package.number("nvram-fetch") if rtas is not None else None
    devices = bus.package.children if bus is not None else []
    size = next((child.number("#bytes") for child in devices if child.text("device_type") == "nvram"), None)
    if token is None or not size:
        return ()
    variables = await _common(_Nvram(vm, token, min(size, NVRAM_MAX)))
    value = next((each[len(VARIABLE) :] for each in variables.split(b"\0") if each.startswith(VARIABLE)), b"")
    return value.decode("latin-1").split()[:MAX_DEVICES]


async def _common(nvram: _Nvram) -> bytes:
    """Return the variables."""
    at = 0
    for _ in range(MAX_PARTITIONS):
        header = await nvram.read(at, _HEADER.size)
        if len(header) < _HEADER.size:
            break
        _, units, name = _HEADER.unpack(header)
        if not units:
            break
        if name.rstrip(b"\0") == COMMON:
            return await nvram.read(at + _HEADER.size, min(units * _UNIT - _HEADER.size, MAX_VARIABLES_BYTES))
        at += units * _UNIT
    return b""


class _Nvram:
    """Reads by the RTAS call nvram-fetch, whose parameter block and data are in this service's part of guest memory."""

    def __init__(self, vm: Vm, token: int, size: int) -> None:
        self._vm, self._token, self._size = vm, token, size

    async def read(self, offset: int, length: int) -> bytes:
        """Return what there is of length bytes; less at NVRAM's end, or when it cannot be read."""
        memory = self._vm.memory
        end = min(offset + length, self._size)
        data = b""
        while offset < end:
            wanted = min(end - offset, _DATA_BYTES)
            arguments = (self._token, _ARGUMENTS, _RETURNS, offset, _DATA_AT, wanted)
            await memory.write_words(BOUNCE_AT, *arguments, RtasStatus.HARDWARE_ERROR, 0)
            result, _ = await self._vm.invoke(Hcall.H_RTAS, BOUNCE_AT)
            status, count = await memory.read_words(BOUNCE_AT + 4 * len(arguments), _RETURNS)
            if result != H.SUCCESS or status != RtasStatus.SUCCESS or count != wanted:
                break
            data += await memory.read(_DATA_AT, wanted)
            offset += wanted
        return data
