# SPDX-License-Identifier: GPL-2.0-or-later
"""The calls of a VIO device's transport: TCEs (LoPAPR 14.5.4.2), queue and signal (LoPAPR 17.2.1, 17.2.3.1).

A device that has no transport answers them itself: the calls are shared, and those go to its back end.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Protocol

from cpu_service.engine.ram import GuestRam
from cpu_service.hypercalls.declarations import ANOTHERS, ANOTHERS_RTAS, HypercallHandler, LocalCall, LocalHypercall, LocalRtas
from cpu_service.transports.queue import CommandQueue
from cpu_service.transports.transports import Transport, Transports
from cpu_service.vcpus.vcpu import Vcpu
from splitvisor.declarations.dma import PAGE_BYTES
from splitvisor.declarations.guest_memory import LOGICAL_ADDRESS_MASK, GuestAddressError
from splitvisor.papr.codes import H, RtasStatus
from splitvisor.papr.hcall import Hcall
from splitvisor.trap.tce_file import TCE_BYTES, TceWindow

MAX_INDIRECT = 512
"""TCEs in the one page that H_PUT_TCE_INDIRECT reads."""
REGISTERED = (H.SUCCESS, H.CLOSED)
"""Answers of a device to H_REG_CRQ after which the queue is registered; H_CLOSED: and nobody is at its other end."""
NOT_YET = (H.BUSY, H.LONG_BUSY_1_MSEC, H.LONG_BUSY_10_MSEC, H.LONG_BUSY_100_MSEC, H.LONG_BUSY_1_SEC)
"""Answers of a device to H_FREE_CRQ by which the queue stays registered, and the guest has to ask again."""


class Forward(Protocol):
    """Carries the hypercall of the loaded vCPU to the back end that owns it."""

    def __call__(self, token: int) -> int:
        """Return r3."""


class TransportCalls:
    """The calls.

    Args:
        transports: of the machine.
        ram: guest RAM.
    """

    def __init__(self, transports: Transports, ram: GuestRam) -> None:
        self._transports, self._ram = transports, ram
        self.forward: Forward = lambda token: H.HARDWARE
        """Set once the back ends are attached."""

    def calls(self) -> Sequence[LocalCall]:
        """Declare them."""
        tce, queue = "LoPAPR 14.5.4.2", "LoPAPR 17.2.3.1"
        hypercalls: tuple[tuple[int, HypercallHandler, str], ...] = (
            (Hcall.H_PUT_TCE, self._put_tce, tce),
            (Hcall.H_GET_TCE, self._get_tce, tce),
            (Hcall.H_STUFF_TCE, self._stuff_tce, tce),
            (Hcall.H_PUT_TCE_INDIRECT, self._put_tce_indirect, tce),
            (Hcall.H_VIO_SIGNAL, self._vio_signal, "LoPAPR 17.2.1"),
            (Hcall.H_REG_CRQ, self._register, queue),
            (Hcall.H_FREE_CRQ, self._free, queue),
            (Hcall.H_SEND_CRQ, self._send, queue),
            (Hcall.H_ENABLE_CRQ, self._enable, queue),
        )
        private = "private to QEMU and SLOF"
        return (
            *(LocalHypercall(token, handler, section, shared=True) for token, handler, section in hypercalls),
            # SLOF makes these without room for a status.
            LocalRtas("ibm,set-tce-bypass", self._set_bypass, private, arguments=2, returns=0, shared=True),
            LocalRtas("quiesce", self._quiesce, private, arguments=0, returns=0, shared=True),
        )

    # DMA windows.

    def _window(self, vcpu: Vcpu) -> tuple[TceWindow, int] | int:
        """Return the window that r4 names and the TCE for the address in r5, or r3."""
        transport = self._transports.find(vcpu.gpr[4])
        if transport is None:
            return ANOTHERS
        index = vcpu.gpr[5] // PAGE_BYTES
        if transport.window is None or index >= transport.window.pages:
            return H.PARAMETER
        return transport.window, index

    def _put_tce(self, vcpu: Vcpu) -> int:
        """Set one entry: LIOBN, I/O bus address, TCE."""
        found = self._window(vcpu)
        if not isinstance(found, tuple):
            return found
        window, index = found
        window[index] = vcpu.gpr[6]
        return H.SUCCESS

    def _get_tce(self, vcpu: Vcpu) -> int:
        """Read one entry: LIOBN, I/O bus address; r4 is the TCE."""
        found = self._window(vcpu)
        if not isinstance(found, tuple):
            return found
        window, index = found
        vcpu.gpr[4] = window[index]
        return H.SUCCESS

    def _stuff_tce(self, vcpu: Vcpu) -> int:
        """Set consecutive entries to one value: LIOBN, I/O bus address, TCE, number of entries."""
        found = self._window(vcpu)
        if not isinstance(found, tuple):
            return found
        window, index = found
        tce, count = vcpu.gpr[6], vcpu.gpr[7]
        if not 0 < count <= window.pages:
            return H.PARAMETER
        room = window.pages - index
        window.fill(index, min(count, room), tce)
        return H.SUCCESS if count <= room else H.PARAMETER

    def _put_tce_indirect(self, vcpu: Vcpu) -> int:
        """Set consecutive entries from a list in memory: LIOBN, I/O bus address, page-aligned list, number of entries."""
        found = self._window(vcpu)
        if not isinstance(found, tuple):
            return found
        window, index = found
        address, count = vcpu.gpr[6] & LOGICAL_ADDRESS_MASK, vcpu.gpr[7]
        if not 0 < count <= MAX_INDIRECT or address % PAGE_BYTES:
            return H.PARAMETER
        try:
            listed = self._ram.read(address, count * TCE_BYTES)
        except GuestAddressError:
            return H.PARAMETER
        room = window.pages - index
        stored = min(count, room)
        window.store(index, struct.pack(f"={stored}Q", *struct.unpack_from(f">{stored}Q", listed)))
        return H.SUCCESS if count <= room else H.PARAMETER

    def _set_bypass(self, vcpu: Vcpu, arguments: Sequence[int], returns: int) -> Sequence[int]:
        """Turn a device's use of guest physical addresses on (1) or off (0): unit address, mode."""
        transport = self._transports.find(arguments[0])
        if transport is None:
            return ANOTHERS_RTAS
        if transport.window is None:
            return (RtasStatus.PARAMETER_ERROR,)
        transport.window.bypass = arguments[1] != 0
        return (RtasStatus.SUCCESS,)

    def _quiesce(self, vcpu: Vcpu, arguments: Sequence[int], returns: int) -> Sequence[int]:
        """Stop all I/O before the guest takes over from its firmware. The call goes on to the back ends, for their devices."""
        self._transports.reset()
        return ANOTHERS_RTAS

    # Signals and queues.

    def _queue(self, vcpu: Vcpu) -> tuple[Transport, CommandQueue] | int:
        """Return the transport that r4 names and its queue, or r3."""
        transport = self._transports.find(vcpu.gpr[4])
        if transport is None:
            return ANOTHERS
        return H.NOT_FOUND if transport.queue is None else (transport, transport.queue)

    def _vio_signal(self, vcpu: Vcpu) -> int:
        """Turn a device's interrupt on (1) or off (0): unit address, mode."""
        transport = self._transports.find(vcpu.gpr[4])
        if transport is None:
            return ANOTHERS
        mode = vcpu.gpr[5]
        if mode & ~transport.declared.signal_mask:
            return H.PARAMETER
        transport.signal_mode = mode
        if transport.queue is not None and transport.queue.holds:
            transport.queue.put_held()
        return H.SUCCESS

    def _register(self, vcpu: Vcpu) -> int:
        """Give a queue memory: unit address, I/O bus address, bytes. Only whole pages of 4 KiB."""
        found = self._queue(vcpu)
        if not isinstance(found, tuple):
            return found
        _, queue = found
        ioba, size = vcpu.gpr[5], vcpu.gpr[6]
        if not queue.fits(ioba, size):
            return H.PARAMETER
        if queue.is_registered:
            return H.RESOURCE
        queue.register(ioba, size)  # What the device says to it finds it.
        result = self._tell(queue, Hcall.H_REG_CRQ)
        if result not in REGISTERED:
            queue.free()
        return result

    def _free(self, vcpu: Vcpu) -> int:
        """Take a queue's memory away, after which its device touches no memory: unit address."""
        found = self._queue(vcpu)
        if not isinstance(found, tuple):
            return found
        _, queue = found
        if queue.is_registered:
            # A device that lost sight of it has nothing to stop.
            result = H.SUCCESS if queue.is_closed else self._tell(queue, Hcall.H_FREE_CRQ)
            if result in NOT_YET:
                return result
            queue.free()
        return H.SUCCESS

    def _tell(self, queue: CommandQueue, token: int) -> int:
        """Tell the device that its queue changes."""
        queue.is_changing = True
        try:
            return self.forward(token)
        finally:
            queue.is_changing = False

    def _send(self, vcpu: Vcpu) -> int:
        """Send an entry to the device: unit address, bytes 0 to 7, bytes 8 to 15."""
        found = self._queue(vcpu)
        if not isinstance(found, tuple):
            return found
        transport, queue = found
        if queue.holds:
            queue.put_held()
        if not queue.is_registered or queue.is_closed or self._transports.is_away(transport.link):
            return H.CLOSED
        return ANOTHERS

    def _enable(self, vcpu: Vcpu) -> int:
        """Let a queue go on after the partition has moved: unit address."""
        found = self._queue(vcpu)
        if not isinstance(found, tuple):
            return found
        _, queue = found
        return H.SUCCESS if queue.is_registered else H.PARAMETER
