# SPDX-License-Identifier: GPL-2.0-or-later
"""A command/response queue (CRQ): a ring of 16-byte entries in guest memory that a device fills (LoPAPR 17.2.3.1).

An entry is there for the guest when the first bit of its first byte is set, and the guest sets the byte to 0 when it has taken
it. So an entry's second half is written first, and one whose place is not free waits.
"""

from __future__ import annotations

import struct
import threading
from collections import deque
from collections.abc import Callable

from cpu_service.engine.ram import GuestRam
from splitvisor.declarations.dma import PAGE_BYTES, WINDOW_BYTES, DmaError, Piece
from splitvisor.errors.problem import ProblemError
from splitvisor.papr.vio import CRQ_ENTRY_BYTES
from splitvisor.rpc import state_pb2 as spb
from splitvisor.trap.tce_file import TCE_READ, TCE_WRITE, TceWindow

MAX_HELD = 4096
"""Entries that wait for room: the most that a device can owe a guest."""
TRANSPORT_EVENT = struct.pack(">BB14x", 0xFF, 2)
"""Tells the guest that its partner deregistered: it frees the queue, registers it anew and starts from the beginning."""


class QueueOverrunError(ProblemError):
    """A device sends entries that nobody asked for."""


class CommandQueue:
    """The queue of one device. Safe for threads: a link's thread puts entries, the vCPU's registers and frees.

    Args:
        ram: guest RAM.
        window: the device's, which the queue is in.
        written: told of guest memory that was written.
        pulse: tells the guest of new entries.
    """

    def __init__(self, ram: GuestRam, window: TceWindow, written: Callable[[int, int], None], pulse: Callable[[], None]) -> None:
        self._ram, self._window, self._written, self._pulse = ram, window, written, pulse
        self._lock = threading.Lock()
        self._ioba = self._bytes = self._next = 0
        self._held: deque[bytes] = deque()
        self._early: dict[int, bytes] = {}
        """Entries that came before others which precede them, by position."""
        self.entries = 0
        """How many entries came from the device since the queue was registered."""
        self.is_closed = False
        """The device lost sight of it: the guest has to register anew."""
        self.is_changing = False
        """The device is being told that the queue was registered or is freed; what it says of it may be of before."""

    @property
    def is_registered(self) -> bool:
        """Whether the guest has given the queue memory."""
        return self._bytes != 0

    @property
    def holds(self) -> bool:
        """Whether entries wait for room."""
        return bool(self._held)

    @staticmethod
    def fits(ioba: int, size: int) -> bool:
        """Whether a queue may be so many bytes at this address of a window."""
        return not ioba % PAGE_BYTES and not size % PAGE_BYTES and 0 < size <= WINDOW_BYTES and ioba + size <= 1 << 64

    def register(self, ioba: int, size: int) -> None:
        """Begin with the first entry of a queue of size bytes; fits() has checked the numbers."""
        with self._lock:
            self._ioba, self._bytes, self._next, self.entries = ioba, size, 0, 0
            self._forget()

    def free(self) -> None:
        """Take the memory away: what comes now is dropped."""
        with self._lock:
            self._bytes = self._next = 0
            self._forget()

    def _forget(self) -> None:
        self._held.clear()
        self._early.clear()
        self.is_closed = False

    def put(self, entries: bytes, position: int) -> None:
        """Put entries of the device.

        Args:
            entries: one after the other.
            position: the number of entries before these since the queue was registered.

        Raises QueueOverrunError.
        """
        with self._lock:
            if not self._bytes or self.is_closed:
                return
            if position > self.entries:
                if not self.is_changing:  # Else it is of the queue before.
                    self._keep_early(entries, position)
                return
            new = self._new(entries, position)
            while (known := min(self._early, default=self.entries + 1)) <= self.entries:
                new += self._new(self._early.pop(known), known)
            if self._append(new):
                self._pulse()

    def _keep_early(self, entries: bytes, position: int) -> None:
        """Keep entries until those before them come: after a lost connection they are said again, maybe behind newer ones."""
        self._early[position] = max(entries, self._early.get(position, b""), key=len)
        if len(self._early) > MAX_HELD or sum(map(len, self._early.values())) > MAX_HELD * CRQ_ENTRY_BYTES:
            raise QueueOverrunError(f"its device has sent {MAX_HELD} queue entries and not those before them")

    def _new(self, entries: bytes, position: int) -> bytes:
        """Return those of entries that have not come yet, and count them."""
        new = entries[(self.entries - position) * CRQ_ENTRY_BYTES :]
        self.entries += len(new) // CRQ_ENTRY_BYTES
        return new

    def close(self) -> None:
        """The device has lost sight of the queue: tell the guest, once."""
        with self._lock:
            if self._bytes and not self.is_closed:
                self.is_closed = True
                if self._append(TRANSPORT_EVENT):
                    self._pulse()

    def put_held(self) -> None:
        """Put what waits, as far as there is room now."""
        with self._lock:
            if self._put_held():
                self._pulse()

    def _append(self, entries: bytes) -> bool:
        """Put entries behind those that wait. Returns whether the guest has something new."""
        for start in range(0, len(entries), CRQ_ENTRY_BYTES):
            if len(self._held) >= MAX_HELD:
                raise QueueOverrunError(f"its device has sent {MAX_HELD} queue entries that the guest has no room for")
            self._held.append(entries[start : start + CRQ_ENTRY_BYTES])
        return self._put_held()

    def _put_held(self) -> bool:
        put = False
        while self._held and self._put(self._held[0]):
            self._held.popleft()
            put = True
        return put

    def _put(self, entry: bytes) -> bool:
        """Put an entry. Returns False when its place is not free."""
        memory = self._ram.map
        try:
            ((address, _),) = self._window.ranges(
                (Piece(self._ioba + self._next, CRQ_ENTRY_BYTES),), TCE_READ | TCE_WRITE, self._ram.size
            )
        except DmaError:  # The guest has unmapped its queue: it cannot be told anything.
            return True
        if memory[address]:
            return False
        memory[address + 8 : address + 16] = entry[8:]
        memory[address : address + 8] = entry[:8]
        self._written(address, CRQ_ENTRY_BYTES)
        self._next = (self._next + CRQ_ENTRY_BYTES) % self._bytes
        return True

    def save(self) -> spb.SavedQueue:
        """Return the state of a registered queue."""
        with self._lock:
            return spb.SavedQueue(
                ioba=self._ioba, bytes=self._bytes, next=self._next, held=b"".join(self._held), is_closed=self.is_closed,
                entries=self.entries,
            )  # fmt: skip

    def restore(self, saved: spb.SavedQueue) -> None:
        """Take over a state. Raises ValueError for one that cannot be."""
        data: bytes = saved.held
        held = [data[start : start + CRQ_ENTRY_BYTES] for start in range(0, len(data), CRQ_ENTRY_BYTES)]
        fits = self.fits(saved.ioba, saved.bytes) and saved.next < saved.bytes and not saved.next % CRQ_ENTRY_BYTES
        if not fits or len(held) > MAX_HELD or len(saved.held) % CRQ_ENTRY_BYTES:
            raise ValueError("a queue cannot be as it was saved")
        self._ioba, self._bytes, self._next, self.entries = saved.ioba, saved.bytes, saved.next, saved.entries
        self._held = deque(held)
        self.is_closed = saved.is_closed
