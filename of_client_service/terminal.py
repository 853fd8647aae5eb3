# SPDX-License-Identifier: GPL-2.0-or-later
"""What read and write do on a VTY: hypercalls of PAPR's terminal option, 16 bytes at a time (LoPAPR 16.6)."""

from __future__ import annotations

from of_client_service.instances import Instance
from splitvisor.backend import Call, Vm
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall

CHUNK = 16
MAX_TRANSFER = 4096
"""Bytes of one read or write; the client gets a short count and goes on from there."""
NOTHING_TO_READ = -2
"""What read answers without input, by the convention of IEEE 1275's serial devices."""
CARRIAGE_RETURN = 0x0D


def put(call: Call, unit: int, data: bytes) -> None:
    """Write to a VTY once the call has been answered."""
    for start in range(0, len(data), CHUNK):
        chunk = data[start : start + CHUNK]
        padded = chunk.ljust(CHUNK, b"\0")
        first, second = int.from_bytes(padded[:8], "big"), int.from_bytes(padded[8:], "big")
        call.post(Hcall.H_PUT_TERM_CHAR, unit, len(chunk), first, second)


async def get(vm: Vm, instance: Instance, limit: int) -> bytes:
    """Take what was typed, at most limit bytes; never waits for more."""
    if instance.terminal is None:
        return b""
    while len(instance.unread) < limit:
        received = await _receive(vm, instance.terminal)
        if not received:
            break
        for byte in received:
            if byte or not instance.after_return:
                instance.unread.append(byte)
            instance.after_return = byte == CARRIAGE_RETURN
    data = bytes(instance.unread[:limit])
    del instance.unread[:limit]
    return data


async def _receive(vm: Vm, unit: int) -> bytes:
    result, outputs = await vm.invoke(Hcall.H_GET_TERM_CHAR, unit)
    if result != H.SUCCESS or len(outputs) < 3:
        return b""
    length, first, second = outputs[:3]
    return (first.to_bytes(8, "big") + second.to_bytes(8, "big"))[: min(length, CHUNK)]
