# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices with a command/response queue (CRQ), over which guest and device send each other entries of 16 bytes (LoPAPR 17.2.3.1).

    class Echo(CrqDevice):
        kind, node_name, device_type, compatible = "echo", "echo", "echo", "example,echo"

        def received(self, entry):
            self.send(entry)

cpu_service keeps the guest's end, see Transport in trap.proto: a device need not know where the queue is or whether it is full.
If the device's process ends, the guest is told with a transport event, and registers the queue anew with the next process.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar

import structlog

from splitvisor.backend.vio.bus import ADDRESS_MASK, VioBus
from splitvisor.backend.vio.device import VioDevice
from splitvisor.declarations.calls import Call, Hypercall, Key, Posted
from splitvisor.declarations.session import Vm
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from splitvisor.papr.vio import CRQ_ENTRY_BYTES
from splitvisor.rpc import state_pb2, trap_pb2

INITIALIZE = bytes((0xC0, 0x01)) + bytes(14)
"""The first entry that one side sends to the other."""
INITIALIZED = bytes((0xC0, 0x02)) + bytes(14)
"""The answer to INITIALIZE."""
COMMAND = 0x80
"""First byte of an entry with a format that device and guest agree on."""
CREDIT_ENTRIES = 4096
"""How many entries of the guest may be under way; one more waits for its turn."""
MESSAGE_BYTES = 256 * CRQ_ENTRY_BYTES
"""Of entries in one message."""
KEPT_ENTRIES = 4096
"""How many of the newest entries to the guest can be said again after a lost connection."""
FREE_S = 1.0
"""How long a vCPU waits for the end of a queue that it frees, before it is told to ask again."""
STOP_S = 15.0
"""How long a reset waits for the end of a queue: half of what cpu_service waits for the reset of all devices together."""
_WORDS = struct.Struct(">QQ")
"""An entry, as the registers have it."""

log = structlog.get_logger()


class CrqDevice(VioDevice):
    """A VioDevice with a queue and a DMA window."""

    has_dma: ClassVar[bool] = True
    signal_mask: ClassVar[int] = 1

    def __init__(self, vm: Vm, unit_address: int, options: Mapping[str, str]) -> None:
        super().__init__(vm, unit_address, options)
        self.queue_open = False
        """Whether the guest has registered the queue."""
        self._entries = 0
        """How many entries were sent since then."""
        self._kept: deque[bytes] = deque(maxlen=KEPT_ENTRIES)
        self._unsent = 0
        """How many of the newest the next message has."""
        self._closing: asyncio.Task[None] | None = None
        """What closed() does, until it is known to have ended."""

    # For a kind of device to extend.

    def opened(self) -> None:
        """Handle that the queue begins: the guest registered it, or the VM was restored with it; restore() comes then."""

    def received(self, entry: bytes) -> None:
        """Handle an entry of 16 bytes from the guest. What takes time is for a task of its own."""

    async def closed(self) -> None:
        """Handle that the queue ends: the guest freed it, the machine was reset, or the device is unplugged.

        Guest memory must not be touched after this returns; what is under way has no answer any more. It may take as long as that
        takes to end: the guest that frees the queue is told to ask again.
        """

    # For a kind of device to call.

    def send(self, entry: bytes) -> None:
        """Send an entry of 16 bytes to the guest; dropped if the queue is not open."""
        if len(entry) != CRQ_ENTRY_BYTES:
            raise ValueError(f"a queue entry has {CRQ_ENTRY_BYTES} bytes, not {len(entry)}")
        if self.queue_open:
            self._kept.append(entry)
            self._entries += 1
            if not self._unsent:
                self.vm.soon(self._send_together)
            self._unsent += 1

    def _send_together(self) -> None:
        """Send what one turn had for the guest: a message and an interrupt cost more than an entry."""
        count, self._unsent = min(self._unsent, len(self._kept)), 0
        if self.queue_open:
            self._put(count)

    def _put(self, count: int) -> None:
        """Put the newest entries into the queue."""
        entries = self._kept[-1] if count == 1 else b"".join(reversed(tuple(islice(reversed(self._kept), count))))
        for start in range(0, len(entries), MESSAGE_BYTES):
            position = self._entries - count + start // CRQ_ENTRY_BYTES
            self.vm.put_entries(self.unit_address, position, entries[start : start + MESSAGE_BYTES])

    # The bus.

    def transport(self) -> trap_pb2.Transport:
        """See VioDevice."""
        transport = super().transport()
        # While it ends, the guest has to ask this process again.
        transport.has_queue, transport.queue_open = True, self.queue_open or self._closing is not None
        return transport

    def open_queue(self) -> None:
        """The guest has registered the queue."""
        self._kept.clear()
        self._entries = 0
        self.queue_open = True
        self.opened()

    async def close_queue(self, seconds: float) -> bool:
        """End the queue, if it is open. Returns False when guest memory may be touched yet, after so many seconds."""
        if self.queue_open:
            self.queue_open = False
            self._closing = asyncio.get_running_loop().create_task(self.closed())
        closing = self._closing
        if closing is None:
            return True
        done, _ = await asyncio.wait((closing,), timeout=seconds)
        if not done:
            return False
        if self._closing is closing:
            self._closing = None
        await closing
        return True

    async def _stop_queue(self) -> None:
        if not await self.close_queue(STOP_S):
            log.error("a transfer does not end: guest memory may change", device=self.name, seconds=STOP_S)

    async def stop(self) -> None:
        """See VioDevice."""
        await self._stop_queue()

    async def attaching(self) -> None:
        """See VioDevice."""
        if self.unit_address not in self.vm.open_queues:
            await self._stop_queue()

    def attached(self) -> None:
        """See VioDevice."""
        missing = self._entries - self.vm.open_queues.get(self.unit_address, self._entries)
        if self.queue_open and 0 < missing <= len(self._kept):
            self._put(missing)

    def save_queue(self) -> state_pb2.QueueState:
        """Return the state of the queue."""
        return state_pb2.QueueState(is_open=self.queue_open, entries=self._entries)

    def restore_queue(self, saved: state_pb2.QueueState) -> None:
        """Take over the state of the queue."""
        self.queue_open, self._entries = saved.is_open, saved.entries
        if self.queue_open:
            self.opened()


def _device(session: Any, call: Call) -> CrqDevice | None:
    bus: VioBus = session.bus
    return bus.find(call.arguments[0] & ADDRESS_MASK, CrqDevice)


def register(session: Any, call: Call) -> int:
    """The guest has given the queue memory: unit address, I/O bus address, bytes."""
    device = _device(session, call)
    if device is None:
        return H.PARAMETER
    device.open_queue()
    return H.SUCCESS


async def free(session: Any, call: Call) -> int:
    """The guest takes the queue's memory away: unit address."""
    device = _device(session, call)
    if device is None:
        return H.PARAMETER
    return H.SUCCESS if await device.close_queue(FREE_S) else H.LONG_BUSY_100_MSEC


def send(session: Any, call: Call) -> int:
    """The guest sends an entry: unit address, bytes 0 to 7, bytes 8 to 15."""
    device = _device(session, call)
    if device is None:
        return H.PARAMETER
    if not device.queue_open:
        return H.CLOSED
    _, high, low = call.arguments
    device.received(_WORDS.pack(high, low))
    return H.SUCCESS


def _addresses(session: Any) -> Sequence[int]:
    return [device.unit_address for device in session.bus.all(CrqDevice)]


_KEY = Key(_addresses)
_POSTED = Posted(CREDIT_ENTRIES, 0, _addresses, call_bytes=1, at_once=True, waits_for_credit=True)

CALLS = (
    Hypercall(Hcall.H_REG_CRQ, register, arguments=3, section="LoPAPR 17.2.3.1", key=_KEY),
    Hypercall(Hcall.H_FREE_CRQ, free, arguments=1, section="LoPAPR 17.2.3.1", key=_KEY),
    Hypercall(
        Hcall.H_SEND_CRQ, send, arguments=3, section="LoPAPR 17.2.3.1", key=_KEY, posted=_POSTED, unavailable_result=H.CLOSED
    ),
)
"""The calls of queues, for all devices."""
