# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames on their way into guest memory: each into a free buffer, announced by an entry of the receive queue (LoPAPR 16.4.2).

The order in memory is: the buffer's slot is emptied, the frame is written, then the entry from its end to its start, so that its
control byte is last. A process that takes this one's place finds every buffer free or used, never both; and the queue goes on at
the first entry whose toggle is not that of the entries before it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog

from splitvisor.backend.vio import PAGE_BYTES, DmaError, DmaWindow, Piece
from vio_service.devices.llan.buffers import NO_SLOT, FreeBuffer, FreeBuffers
from vio_service.devices.llan.large_receive import merged
from vio_service.devices.llan.layout import (
    CORRELATOR_BYTES,
    DESCRIPTOR,
    DESCRIPTOR_BYTES,
    DESCRIPTOR_VALID,
    DROPPED,
    ENTRY_BYTES,
    ENTRY_CHECKSUM_GOOD,
    ENTRY_HEAD,
    ENTRY_LARGE,
    ENTRY_TOGGLE,
    ENTRY_VALID,
    FILTER_BYTES,
    FRAME_OFFSET,
    FREE_BUFFERS,
    LARGE_OFFSET,
    SEGMENT_SIZE,
    Descriptor,
    slot_ioba,
)
from vio_service.devices.llan.offload import find_tcp, is_checksum_good

WAITING_FRAMES, WAITING_BYTES = 1024, 4 << 20
"""Frames that wait for buffers; then the wire has to keep them."""
BATCH = 16
"""Frames that the guest is told of at a time."""
PATIENCE_S = 0.1
"""How long a frame waits for a buffer that it fits into."""

log = structlog.get_logger()


class Registration(NamedTuple):
    """What H_REGISTER_LOGICAL_LAN said."""

    buffer_list: int
    filter_list: int
    queue: int
    queue_bytes: int


class Offload(NamedTuple):
    """What the device does for the guest's TCP with frames that arrive."""

    checks: bool = False
    """Checksums are looked at, and the guest need not do it."""
    merges: bool = False
    """Segments that follow each other become one frame."""
    vouched: bool = False
    """The wire is known to bring no wrong checksums."""


class _Delivery(NamedTuple):
    buffer: FreeBuffer
    frame: bytes
    flags: int
    mss: int = 0
    """Of a frame that is several segments."""


class Receiver:
    """The receiving half of an open device.

    Args:
        window: of the device.
        registered: where its pages and its queue are.
        interrupt: tells the guest.
        has_room: called when frames are wanted again after receive() has refused one.
    """

    def __init__(
        self, window: DmaWindow, registered: Registration, interrupt: Callable[[], None], has_room: Callable[[], None]
    ) -> None:
        self.registered = registered
        self.buffers = FreeBuffers()
        self.offload = Offload()
        self.dropped = self._dropped_shown = 0
        """Frames that the guest had no buffer for; its page says so, too, also from an earlier process."""
        self.lost = 0
        """The same, of this process alone."""
        self._window, self._interrupt, self._has_room = window, interrupt, has_room
        self._entry, self._toggle = 0, ENTRY_TOGGLE
        """Of the next entry: where it is in the queue, in bytes, and its toggle."""
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._refused = False
        self._is_open = True
        self._paused = False
        """Frames wait here."""
        self._busy = asyncio.Lock()
        """Guest memory is being written."""
        self._delivering: asyncio.Task[None] | None = None
        self._impatience: asyncio.TimerHandle | None = None

    # The guest's side.

    async def clear_pages(self) -> None:
        """Make the pages as they are at the start. Raises DmaError, also for a queue that is not mapped."""
        registered = self.registered
        await self._window.gather((Piece(registered.queue, registered.queue_bytes),))
        await self._window.write(registered.filter_list, bytes(FILTER_BYTES))
        queue = Descriptor(DESCRIPTOR_VALID, registered.queue_bytes, registered.queue)
        filters = Descriptor(DESCRIPTOR_VALID, FILTER_BYTES, registered.filter_list)
        await self._window.write(registered.buffer_list, (queue.encode() + filters.encode()).ljust(PAGE_BYTES, b"\0"))

    async def add(self, descriptor: Descriptor, *, may_be_read: bool = False) -> bool | None:
        """Take a buffer. Returns False when there is no room for it, None when the guest has not mapped it.

        may_be_read: it was looked at already.
        """
        known = self.buffers.count
        added = self.buffers.add(descriptor.ioba, descriptor.length)
        if added is None:
            return False
        if self.buffers.count == known:
            return True
        try:
            if not may_be_read:
                await self._window.gather((Piece(descriptor.ioba, CORRELATOR_BYTES),))
            if added.slot != NO_SLOT:
                await self._window.write(self._slot(added), descriptor.encode())
        except DmaError:
            self.buffers.discard(added)
            return None
        self._deliver_soon()
        return True

    async def give_back(self, length: int) -> bool:
        """Return a free buffer of a length to the guest by an entry without a frame. Returns False when there is none."""
        async with self._busy:
            buffer = self.buffers.take_exactly(length)
            if buffer is None or not self._is_open:
                return False
            written = await self._write([_Delivery(buffer, b"", 0)])
        if written:
            self._interrupt()
        return written

    async def recover(self) -> None:
        """Find what another process left in guest memory: free buffers, and where the queue goes on."""
        registered = self.registered
        try:
            page = await self._window.read(registered.buffer_list, PAGE_BYTES)
            more = await self._window.read(registered.filter_list, FILTER_BYTES)
            queue = await self._window.read(registered.queue, registered.queue_bytes)
        except DmaError as error:
            log.warning("a guest has unmapped its network device's pages", reason=str(error))
            return
        (self.dropped,) = (self._dropped_shown,) = DESCRIPTOR.unpack_from(page, DROPPED)
        words = DESCRIPTOR.iter_unpack(page[FREE_BUFFERS:DROPPED] + more)
        for slot, (word,) in enumerate(words):
            found = Descriptor.of(word)
            if found.is_valid:
                self.buffers.found(slot, found.ioba, found.length)
        toggles = bytes(control & 0x80 for control in queue[::ENTRY_BYTES])
        written, first = len(toggles) - len(toggles.lstrip(toggles[:1])), bool(toggles[0])
        if written == len(toggles):
            written, first = 0, not first
        self._entry, self._toggle = written * ENTRY_BYTES, ENTRY_TOGGLE if first else 0

    # The wire's side.

    def receive(self, frame: bytes) -> bool:
        """Take a frame; see Receive."""
        if len(self._waiting) >= WAITING_FRAMES or self._waiting_bytes >= WAITING_BYTES:
            self._refused = True
            return False
        self._waiting.append(frame)
        self._waiting_bytes += len(frame)
        self._deliver_soon()
        return True

    # Beginning and end.

    async def pause(self) -> None:
        """Leave guest memory alone until resume()."""
        self._paused = True
        async with self._busy:
            pass

    def resume(self) -> None:
        """Go on."""
        self._paused = False
        self._deliver_soon()

    async def close(self) -> None:
        """Leave guest memory alone for ever."""
        self.end()
        async with self._busy:
            pass

    def end(self) -> None:
        """Take no more frames; what is being written ends soon."""
        self._is_open = False
        self._waiting.clear()
        self._waiting_bytes = 0
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None

    def cancel(self) -> None:
        """Take no more frames, and end at once: there is no guest any more."""
        self.end()
        if self._delivering is not None:
            self._delivering.cancel()

    # Delivery.

    def _deliver_soon(self) -> None:
        if (
            self._delivering is None
            and self._is_open
            and not self._paused
            and (self._waiting or self._dropped_shown != self.dropped)
        ):
            self._delivering = asyncio.get_running_loop().create_task(self._deliver())

    async def _deliver(self) -> None:
        try:
            while self._is_open and not self._paused:
                async with self._busy:
                    batch = self._next()
                    written = await self._write(batch)
                    await self._show_dropped()
                if written:
                    self._interrupt()
                if self._refused and self._is_open and len(self._waiting) <= WAITING_FRAMES // 2:
                    self._refused = False
                    self._has_room()
                if not batch:
                    return
                await asyncio.sleep(0)
        finally:
            self._delivering = None

    def _next(self) -> list[_Delivery]:
        """Take frames that wait, as far as there are buffers for them."""
        batch: list[_Delivery] = []
        while self._waiting and len(batch) < BATCH and self._is_open and not self._paused:
            if self.offload.merges and (large := self._large()) is not None:
                batch.append(large)
                continue
            frame = self._waiting[0]
            buffer = self.buffers.take(len(frame))
            if buffer is not None:
                batch.append(_Delivery(buffer, frame, self._flags(frame)))
            elif self.buffers.could_fit(len(frame)):
                if self._impatience is None:
                    self._impatience = asyncio.get_running_loop().call_later(PATIENCE_S, self._lose, frame)
                break
            else:
                self._count_loss()
            self._remove_first()
        return batch

    def _large(self) -> _Delivery | None:
        """Take several frames that wait as one, if they are segments of TCP that follow each other."""
        found = merged(self._waiting, self.buffers.longest - LARGE_OFFSET, vouched=self.offload.vouched)
        if found is None:
            return None
        buffer = self.buffers.take(len(found.frame), LARGE_OFFSET)
        assert buffer is not None, "the longest buffer is free"
        for _ in range(found.frames):
            self._remove_first()
        return _Delivery(buffer, found.frame, ENTRY_VALID | ENTRY_LARGE | ENTRY_CHECKSUM_GOOD, found.mss)

    def _remove_first(self) -> None:
        self._waiting_bytes -= len(self._waiting.popleft())
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None

    def _flags(self, frame: bytes) -> int:
        found = find_tcp(frame) if self.offload.checks else None
        good = found is not None and (self.offload.vouched or is_checksum_good(frame, found))
        return ENTRY_VALID | (ENTRY_CHECKSUM_GOOD if good else 0)

    def _lose(self, frame: bytes) -> None:
        """A frame has waited for long."""
        self._impatience = None
        if self._is_open and self._waiting and self._waiting[0] is frame:
            self._remove_first()
            self._count_loss()
            self._deliver_soon()

    def _count_loss(self) -> None:
        self.dropped += 1
        self.lost += 1

    async def _show_dropped(self) -> None:
        """Say in the guest's page how many frames are lost."""
        if self._dropped_shown != self.dropped and self._is_open:
            self._dropped_shown = self.dropped
            try:
                await self._window.write(self.registered.buffer_list + DROPPED, DESCRIPTOR.pack(self.dropped))
            except DmaError as error:
                log.debug("a guest has unmapped its network device's pages", reason=str(error))

    async def _write(self, batch: Sequence[_Delivery]) -> bool:
        """Write deliveries; one that the guest's memory does not allow is left out. Returns whether there was one."""
        if not batch:
            return False
        try:
            await self._write_all(batch)
        except DmaError:
            return await self._write_each(batch)
        finally:
            for delivery in batch:
                self.buffers.release(delivery.buffer)
        return True

    async def _write_each(self, batch: Sequence[_Delivery]) -> bool:
        written = False
        for delivery in batch:
            try:
                await self._write_all((delivery,))
                written = True
            except DmaError as error:
                log.debug("a guest's buffer is not mapped", reason=str(error))
        return written

    async def _write_all(self, batch: Sequence[_Delivery]) -> None:
        window, pieces, parts = self._window, list[Piece](), list[bytes]()
        correlators = (await window.gather([Piece(each.buffer.ioba, CORRELATOR_BYTES) for each in batch])).load()
        entry, toggle = self._entry, self._toggle
        for number, (buffer, frame, flags, mss) in enumerate(batch):
            offset = LARGE_OFFSET if mss else FRAME_OFFSET
            if mss:
                pieces.append(Piece(buffer.ioba + FRAME_OFFSET, SEGMENT_SIZE.size))
                parts.append(SEGMENT_SIZE.pack(mss))
            if buffer.slot != NO_SLOT:
                pieces.append(Piece(self._slot(buffer), DESCRIPTOR_BYTES))
                parts.append(bytes(DESCRIPTOR_BYTES))
            place = self.registered.queue + entry
            pieces += (
                Piece(buffer.ioba + offset, len(frame)),
                Piece(place + ENTRY_HEAD.size, CORRELATOR_BYTES),
                Piece(place, ENTRY_HEAD.size),
            )
            parts += (
                frame,
                correlators[number * CORRELATOR_BYTES : (number + 1) * CORRELATOR_BYTES],
                ENTRY_HEAD.pack(toggle | flags | offset, len(frame)),
            )
            entry += ENTRY_BYTES
            if entry >= self.registered.queue_bytes:
                entry, toggle = 0, toggle ^ ENTRY_TOGGLE
        scatter = await window.scatter(pieces)
        data = b"".join(parts)  # To look for the place of each part takes longer.
        await scatter.commit(scatter.buffers.store(memoryview(data)))
        self._entry, self._toggle = entry, toggle

    def _slot(self, buffer: FreeBuffer) -> int:
        return slot_ioba(buffer.slot, self.registered.buffer_list, self.registered.filter_list)
