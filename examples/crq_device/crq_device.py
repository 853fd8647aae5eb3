# SPDX-License-Identifier: GPL-2.0-or-later
"""A device with a command/response queue: the guest points at bytes in its DMA window, and the device turns them round.

A command is an entry of 16 bytes: 0x80, format 1, a tag (16 bits), the number of bytes (32 bits), their address (64 bits).
The answer is the entry with the number of bytes that were turned round.
"""

from __future__ import annotations

import asyncio
import struct

from splitvisor.backend.vio import COMMAND, INITIALIZE, INITIALIZED, CrqDevice, DeviceKind, DmaError, VioBackend, kinds

FORMAT, MAX_BYTES, MAX_UNDER_WAY = 1, 1 << 20, 64
ENTRY = struct.Struct(">BBHIQ")


class Turner(CrqDevice):
    """One VM's device."""

    kind = node_name = device_type = "turner"
    compatible = "example,turner"

    def opened(self) -> None:
        """The guest has registered the queue: nothing is under way."""
        self.under_way: set[asyncio.Task[None]] = set()

    def received(self, entry: bytes) -> None:
        """Answer the greeting; let a command take its time."""
        if entry == INITIALIZE:
            self.send(INITIALIZED)
        elif entry[:2] == bytes((COMMAND, FORMAT)) and len(self.under_way) < MAX_UNDER_WAY:
            task = asyncio.create_task(self.turn(*ENTRY.unpack(entry)[2:]))
            self.under_way.add(task)
            task.add_done_callback(self.under_way.discard)

    async def turn(self, tag: int, length: int, ioba: int) -> None:
        """Turn length bytes round, and say so."""
        assert self.window is not None
        try:
            if length > MAX_BYTES:
                raise DmaError(f"{length} bytes are too many")
            await self.window.write(ioba, (await self.window.read(ioba, length))[::-1])
        except DmaError:
            length = 0
        self.send(ENTRY.pack(COMMAND, FORMAT, tag, length, ioba))

    async def drain(self) -> None:
        """Finish before the VM is saved."""
        await asyncio.gather(*self.under_way)

    async def closed(self) -> None:
        """The queue ends: leave the guest's memory alone."""
        for task in self.under_way:
            task.cancel()
        await asyncio.gather(*self.under_way, return_exceptions=True)


BACKEND = VioBackend("turners", kinds(DeviceKind(Turner)))

if __name__ == "__main__":
    BACKEND.serve()
