# SPDX-License-Identifier: GPL-2.0-or-later
"""What a disk's commands work on: its device, its write protection and its cache."""

from __future__ import annotations

from splitvisor.block.device import BlockDevice
from splitvisor.scsi.block_ranges import BlockRanges
from splitvisor.scsi.block_unit import BlockUnit
from splitvisor.scsi.mode_pages import CACHING, CONTROL, ModePage
from splitvisor.scsi.sense import CAPACITY_CHANGED, STOPPED, WRITE_PROTECTED, CheckError, Sense
from splitvisor.scsi.unit import Identity

_WRITE_PROTECT = 0x80
_DPO_AND_FUA = 0x10


class DiskUnit(BlockUnit):
    """A logical unit whose blocks can be written.

    Attributes:
        ranges: what is being written.
        stopped: whether START STOP UNIT has stopped it.
        known_size: bytes of the device, as initiators know it.
    """

    def __init__(self, device: BlockDevice, identity: Identity, block_bytes: int, pages: tuple[ModePage, ...]) -> None:
        super().__init__(identity, pages)
        self._device = device
        self.known_size = device.size
        self.block_bytes = block_bytes
        self.ranges = BlockRanges()
        self.stopped = False

    @property
    def device(self) -> BlockDevice:
        """What holds the blocks."""
        return self._device

    @property
    def blocks(self) -> int:
        """The number of whole blocks, as initiators know it."""
        return self.known_size // self.block_bytes

    @property
    def write_through(self) -> bool:
        """Whether a write has to be durable when it ends: the cache is switched off."""
        return not self.modes.bit(CACHING, 2, 0x04)

    def resized(self) -> None:
        """Follow the device's size, which has changed, and have a unit attention for it."""
        if self.known_size != self._device.size:
            self.known_size = self._device.size
            self.attention(CAPACITY_CHANGED)

    def check_medium(self) -> None:
        """Raise CheckError while the disk is stopped."""
        if self.stopped:
            raise CheckError(STOPPED)

    def check_writable(self) -> None:
        """Raise CheckError, if the disk is write-protected: by the host, or by the control mode page."""
        if self._device.read_only or self.modes.bit(CONTROL, 4, 0x08):
            raise CheckError(WRITE_PROTECTED)

    async def settle(self, fua: bool = False) -> None:
        """Make a change durable that the device has no FUA for, if FUA or the cache's mode asks for it."""
        if fua or self.write_through:
            await self._device.flush()

    def reset(self, sense: Sense) -> None:
        """Be as after power-on: started."""
        super().reset(sense)
        self.stopped = False

    def mode_flags(self) -> int:
        """Return the write protection, and that DPO and FUA are supported (SBC-3 6.4.1)."""
        protected = self._device.read_only or self.modes.bit(CONTROL, 4, 0x08)
        return _DPO_AND_FUA | (_WRITE_PROTECT if protected else 0)

    def block_descriptor(self, long: bool) -> bytes:
        """Return number and length of the blocks (SBC-3 6.4.2)."""
        if long:
            return self.blocks.to_bytes(8, "big") + bytes(4) + self.block_bytes.to_bytes(4, "big")
        return min(self.blocks, 0xFFFFFFFF).to_bytes(4, "big") + self.block_bytes.to_bytes(4, "big")
