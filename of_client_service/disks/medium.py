# SPDX-License-Identifier: GPL-2.0-or-later
"""The medium of a logical unit: its bytes, at any alignment, in guest memory or here. Its back end moves them."""

from __future__ import annotations

from collections.abc import Iterator

from of_client_service.disks.scratch import BOUNCE_AT, BOUNCE_BYTES
from of_client_service.volumes.source import Extent, MediumError, Source
from splitvisor.backend import Vm
from splitvisor.papr.block_access import BlockOperation, BlockRequest, BlockUnit
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall


class NoMediumError(MediumError):
    """The drive is empty."""


async def open_medium(vm: Vm, adapter: int, lun: int) -> Medium:
    """Ask what a logical unit is. Only inside a handler. Raises MediumError, NoMediumError for an empty drive."""
    request = BlockRequest(adapter, BlockOperation.DESCRIBE, lun)
    result, outputs = await vm.invoke(Hcall.SPLITVISOR_H_BLOCK, *request.arguments())
    if result == H.NOT_FOUND:
        raise NoMediumError("has no medium")
    unit = BlockUnit.parse(outputs) if result == H.SUCCESS else None
    if unit is None:
        raise MediumError(f"is not there (its back end answers {_code(result)})")
    return Medium(vm, adapter, lun, unit)


class Medium(Source):
    """The bytes of a logical unit. To be used only inside handlers.

    Args:
        vm: the machine.
        adapter: unit address of its adapter.
        lun: its 64-bit LUN.
        unit: what it is.
    """

    def __init__(self, vm: Vm, adapter: int, lun: int, unit: BlockUnit) -> None:
        self._vm = vm
        self.adapter, self.lun, self.unit = adapter, lun, unit
        self.size, self.block_bytes = unit.size, unit.block_bytes

    async def read(self, offset: int, length: int) -> bytes:
        """See Source."""
        self.check(offset, length)
        parts = []
        end = offset + length
        while offset < end:
            skipped = offset % self.block_bytes
            wanted = min(end - offset, BOUNCE_BYTES - skipped)
            parts.append(await self._bounce(offset - skipped, skipped, wanted))
            offset += wanted
        return b"".join(parts)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """See Source."""
        if length:
            yield Extent(offset, length)

    async def load(self, offset: int, address: int, length: int) -> None:
        """Put bytes into guest memory, wherever they begin and end. Raises MediumError, VolumeError, GuestAddressError."""
        self.check(offset, length)
        self._vm.memory.check(address, length)
        while length:
            skipped = offset % self.block_bytes
            if skipped or length < self.block_bytes:
                moved = min(length, self.block_bytes - skipped)
                await self._vm.memory.write(address, await self._bounce(offset - skipped, skipped, moved))
            else:
                moved = min(length - length % self.block_bytes, self.unit.max_transfer)
                await self._move(BlockOperation.READ, offset, address, moved)
            offset, address, length = offset + moved, address + moved, length - moved

    async def store(self, offset: int, address: int, length: int) -> None:
        """Put bytes of guest memory on the medium; whole blocks. Raises MediumError, VolumeError, GuestAddressError."""
        self.check(offset, length)
        self._vm.memory.check(address, length)
        if offset % self.block_bytes or length % self.block_bytes:
            raise MediumError("is written in whole blocks only")
        while length:
            moved = min(length, self.unit.max_transfer)
            await self._move(BlockOperation.WRITE, offset, address, moved)
            offset, address, length = offset + moved, address + moved, length - moved

    async def _bounce(self, block_at: int, skipped: int, wanted: int) -> bytes:
        """Read blocks into this service's part of guest memory, and return what is wanted of them."""
        whole = -(-(skipped + wanted) // self.block_bytes) * self.block_bytes
        await self._move(BlockOperation.READ, block_at, BOUNCE_AT, whole)
        return await self._vm.memory.read(BOUNCE_AT + skipped, wanted)

    async def _move(self, operation: BlockOperation, offset: int, address: int, length: int) -> None:
        request = BlockRequest(self.adapter, operation, self.lun, offset, address, length)
        result, outputs = await self._vm.invoke(Hcall.SPLITVISOR_H_BLOCK, *request.arguments())
        if result == H.NOT_FOUND:
            raise NoMediumError("has no medium any more")
        if result != H.SUCCESS or not outputs or outputs[0] != length:
            verb = "read" if operation is BlockOperation.READ else "written"
            why = "moves less than it says that there is" if result == H.SUCCESS else f"answers {_code(result)}"
            raise MediumError(f"cannot be {verb} at byte {offset} (its back end {why})")


def _code(result: int) -> str:
    return f"H_{H(result).name}" if result in H._value2member_map_ else str(result)
