# SPDX-License-Identifier: GPL-2.0-or-later
"""Files on their way into RAM while they arrive, from their beginning, with a size that is known or not.

What arrives is kept here until it is written, a block or a few: the sender waits for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable

from of_client_service.boot.program import HEADER_BYTES, place_program, start_program, zeros
from of_client_service.claims import ADDRESS_LIMIT, Claims
from of_client_service.client_interface import StartedProgram
from of_client_service.volumes.source import VolumeError
from splitvisor.backend import Vm
from splitvisor.images.placement import Placement

GATHERED_BYTES = 64 << 10
"""What is written to guest memory at a time."""
ALIGNMENT = 64 << 10
"""Of an initial RAM disk: whole pages of Linux, whatever their size."""


class _Arriving(ABC):
    """What both kinds of files have in common; a Sink of TFTP.

    Args:
        vm: the machine.
        claims: its claimed memory.
    """

    def __init__(self, vm: Vm, claims: Claims) -> None:
        self._vm, self._claims = vm, claims
        self._size: int | None = None
        self._arrived = 0
        """Bytes of the file, those that are gathered included."""
        self._gathered = bytearray()
        self._pending: deque[tuple[int, bytes | int]] = deque()
        """Addresses, and what to write there: bytes, or so many zeros."""

    def begin(self, size: int | None) -> None:
        """See Sink."""
        self._size = size

    def write(self, data: bytes) -> None:
        """See Sink. Raises VolumeError."""
        self._gathered += data
        self._arrived += len(data)
        if len(self._gathered) >= GATHERED_BYTES:
            self._pass_on()

    def _pass_on(self) -> None:
        data = bytes(self._gathered)
        self._gathered.clear()
        if data:
            self._place(self._arrived - len(data), data)

    @abstractmethod
    def _place(self, offset: int, data: bytes) -> None:
        """Decide where bytes go that are at an offset of the file."""

    async def settle(self, is_time: Callable[[], bool]) -> bool:
        """Write what has arrived, until it is time to stop. Returns whether all is written. Raises GuestAddressError."""
        while self._pending and not is_time():
            address, data = self._pending.popleft()
            await self._vm.memory.write(address, data if isinstance(data, bytes) else bytes(data))
        return not self._pending


class ArrivingProgram(_Arriving):
    """A program: its headers, which come first, say where the rest goes."""

    def __init__(self, vm: Vm, claims: Claims, largest: int) -> None:
        super().__init__(vm, claims)
        self._largest = largest
        self._placement: Placement | None = None

    @property
    def end(self) -> int:
        """The address behind the program and the room that it needs, once there are headers."""
        return 0 if self._placement is None else self._placement.base + self._placement.size

    def _place(self, offset: int, data: bytes) -> None:
        if self._placement is None:
            size = self._largest if self._size is None else self._size
            self._place_by(data, size)
            assert self._placement is not None
        for each in self._placement.segments:
            start = max(offset, each.segment.offset)
            end = min(offset + len(data), each.segment.offset + each.segment.file_size)
            if start < end:
                self._pending.append((each.address + start - each.segment.offset, data[start - offset : end - offset]))

    def _place_by(self, head: bytes, size: int) -> None:
        self._placement = place_program(head, size, self._vm.memory.size, self._claims)
        self._pending.extend(zeros(self._placement))

    def finish(self) -> None:
        """All has arrived. Raises VolumeError when that is no program, or not a whole one."""
        if self._placement is None:
            self._size = self._arrived
        self._pass_on()
        if self._placement is None:
            raise VolumeError("is empty")
        for each in self._placement.segments:
            if each.segment.file_size and each.segment.offset + each.segment.file_size > self._arrived:
                raise VolumeError(f"ends within the segment for {each.segment.virtual:#x}")

    async def start(self) -> StartedProgram:
        """Claim its memory once all is settled. Raises VolumeError for an entry that cannot be."""
        assert self._placement is not None
        return await start_program(self._vm, self._placement, self._claims)


class ArrivingInitrd(_Arriving):
    """An initial RAM disk, which goes into free memory behind a program.

    Args:
        vm: the machine.
        claims: its claimed memory.
        above: the lowest address for it.
    """

    def __init__(self, vm: Vm, claims: Claims, above: int) -> None:
        super().__init__(vm, claims)
        self._above = above
        self._start, self._room = 0, 0

    @property
    def place(self) -> tuple[int, int]:
        """Its address and bytes, once all has arrived."""
        return self._start, self._arrived

    def begin(self, size: int | None) -> None:
        """See Sink. Raises VolumeError when there is no room."""
        super().begin(size)
        gaps = list(self._gaps())
        fitting = [gap for gap in gaps if size is not None and gap[1] >= size]
        largest = max(gaps, key=lambda gap: gap[1], default=(0, 0))
        self._start, self._room = fitting[0] if fitting else largest
        self._check(size or 0)

    def finish(self) -> None:
        """All has arrived. Raises VolumeError for nothing."""
        self._pass_on()
        if not self._arrived:
            raise VolumeError("is empty")

    def claim(self) -> None:
        """Take its memory, once all is settled."""
        self._claims.reserve(self._start, self._arrived)

    def _place(self, offset: int, data: bytes) -> None:
        self._check(offset + len(data))
        self._pending.append((self._start + offset, data))

    def _check(self, size: int) -> None:
        if size > self._room:
            raise VolumeError(f"has {size} bytes; there is free memory for {self._room}; give the machine more --memory")

    def _gaps(self) -> list[tuple[int, int]]:
        """Return address and length of free memory, in order."""
        gaps = []
        for start, length in self._claims.available():
            first = -(-max(start, self._above) // ALIGNMENT) * ALIGNMENT
            end = min(start + length, ADDRESS_LIMIT)
            if first < end:
                gaps.append((first, end - first))
        return gaps


assert GATHERED_BYTES >= HEADER_BYTES
