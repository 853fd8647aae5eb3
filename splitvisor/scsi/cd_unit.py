# SPDX-License-Identifier: GPL-2.0-or-later
"""What a CD-ROM drive's commands work on: its medium, its tray and its locks."""

from __future__ import annotations

from enum import IntEnum

from splitvisor.block.device import BlockDevice
from splitvisor.errors.problem import ProblemError
from splitvisor.scsi.block_unit import BlockUnit
from splitvisor.scsi.mode_pages import ModePage
from splitvisor.scsi.sense import MEDIUM_CHANGED, NO_MEDIUM, NO_MEDIUM_TRAY_OPEN, CheckError, Sense
from splitvisor.scsi.task_set import end_of
from splitvisor.scsi.unit import Identity

CD_BLOCK_BYTES = 2048
LARGEST_CD_BYTES = 900 << 20
"""A medium that is larger is a DVD."""


class MediaEvent(IntEnum):
    """What has happened to the medium (MMC-6 table 307)."""

    NONE = 0
    EJECT_REQUESTED = 1
    NEW_MEDIUM = 2
    MEDIUM_REMOVED = 3


class TrayLockedError(ProblemError):
    """A guest holds the tray closed."""


class MediumBusyError(ProblemError):
    """The medium that was taken out is still being read."""


class CdUnit(BlockUnit):
    """A drive.

    Attributes:
        tray_open: whether the initiator has opened the tray. The medium is in it, and is back when the tray closes.
        event: the last event of the medium that was not reported.
        locks: the initiators that prevent the tray from opening.
    """

    block_bytes = CD_BLOCK_BYTES

    def __init__(self, medium: BlockDevice | None, identity: Identity, pages: tuple[ModePage, ...]) -> None:
        super().__init__(identity, pages)
        self._medium = medium
        self.event = MediaEvent.NONE
        self.tray_open = False
        self.locks: set[str] = set()

    @property
    def medium(self) -> BlockDevice | None:
        """What is in the drive, whether or not the tray is open."""
        return self._medium

    @property
    def device(self) -> BlockDevice:
        """What holds the blocks. Raises CheckError, if there is no medium or the tray is open."""
        if self._medium is None or self.tray_open:
            raise CheckError(NO_MEDIUM_TRAY_OPEN if self.tray_open else NO_MEDIUM)
        return self._medium

    @property
    def ready(self) -> BlockDevice | None:
        """The medium, if it can be read."""
        return None if self.tray_open else self._medium

    async def change(self, medium: BlockDevice | None, *, force: bool = False) -> BlockDevice | None:
        """Exchange the medium from outside, and close the tray.

        Args:
            medium: what is in the drive from now on, or nothing.
            force: also while the guest prevents it. Without it the guest learns of the wish, and may open the tray itself.

        Returns:
            The medium that was there. Nothing reads it any more; it is the caller's to close.

        Raises:
            TrayLockedError: the guest prevents it.
            MediumBusyError: a transfer does not end. The drive has the new medium all the same.
        """
        if self.locks and self.ready is not None and not force:
            self.event = MediaEvent.EJECT_REQUESTED
            raise TrayLockedError("the guest has locked the tray", "eject the medium in the guest, or use force")
        old, self._medium = self._medium, medium
        self.tray_open = False
        self.locks.clear()
        if medium is not None:
            self.event = MediaEvent.NEW_MEDIUM
            self.attention(MEDIUM_CHANGED)
        elif old is not None:
            self.event = MediaEvent.MEDIUM_REMOVED
        if not await end_of(self.tasks.all()):
            raise MediumBusyError("a transfer from the old medium does not end", "see what holds up its file or server")
        return old

    def open_tray(self) -> None:
        """Open the tray for the initiator."""
        if not self.tray_open:
            self.tray_open = True
            self.event = MediaEvent.MEDIUM_REMOVED

    def close_tray(self, initiator: str) -> None:
        """Close the tray for an initiator, which needs no unit attention for what it has done itself."""
        if self.tray_open:
            self.tray_open = False
            if self._medium is not None:
                self.event = MediaEvent.NEW_MEDIUM
                self.attention(MEDIUM_CHANGED, but=initiator)

    def take_event(self) -> MediaEvent:
        """Return what has happened last to the medium, once."""
        event, self.event = self.event, MediaEvent.NONE
        return event

    def reset(self, sense: Sense) -> None:
        """Be as after power-on: not locked."""
        super().reset(sense)
        self.locks.clear()

    def nexus_lost(self, initiator: str) -> None:
        """Forget an initiator and its lock."""
        super().nexus_lost(initiator)
        self.locks.discard(initiator)
