# SPDX-License-Identifier: GPL-2.0-or-later
"""The transports of a machine's VIO devices: DMA window, queue and signal of each, whichever process has the device now."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog

from cpu_service.engine.ram import GuestRam
from cpu_service.link.errors import BackendUnavailableError
from cpu_service.link.events import LinkStatus
from cpu_service.transports.queue import CommandQueue, QueueOverrunError
from splitvisor.declarations.dma import PAGE_BYTES, WINDOW_BYTES
from splitvisor.papr.hcall import Hcall, hcall_name
from splitvisor.rpc import state_pb2 as spb
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.tce_file import TceTables, TceWindow

SIGNAL_ON = 1
"""Mode of H_VIO_SIGNAL: the device may interrupt."""
AWAY_S = 2.0
"""A device that is away longer has lost sight of its queue, as far as the guest is told."""
HELD_RETRY_S = 0.01
"""How often places in full queues are looked for."""
WINDOW_CALLS = (Hcall.H_PUT_TCE, Hcall.H_GET_TCE, Hcall.H_STUFF_TCE, Hcall.H_PUT_TCE_INDIRECT, Hcall.H_VIO_SIGNAL)
"""Calls of a device with a transport that never travel."""

log = structlog.get_logger()


class TransportError(BackendUnavailableError):
    """A back end's transports cannot be."""


@dataclass
class Transport:
    """What is kept for one device."""

    link: LinkStatus
    """To the back end that has the device."""
    declared: pb.Transport
    window: TceWindow | None
    queue: CommandQueue | None
    signal_mode: int = 0

    @property
    def unit_address(self) -> int:
        """The device's unit address and LIOBN."""
        return self.declared.unit_address

    @property
    def may_interrupt(self) -> bool:
        """Whether the guest wants the device's interrupts."""
        return not self.declared.signal_mask or bool(self.signal_mode & SIGNAL_ON)

    def reset(self) -> None:
        """Return to the state at power-on."""
        self.signal_mode = 0
        if self.window is not None:
            self.window.reset()
        if self.queue is not None:
            self.queue.free()


class Transports:
    """All transports of a machine. Safe for threads: links change them, the vCPU's thread uses them.

    Args:
        ram: guest RAM.
        tables: where DMA windows are.
        written: told of guest memory that was written.
        pulse: pulses an interrupt source.
        attend: has put_held() called on the vCPU's thread.
        saved: of a restored machine.
    """

    def __init__(
        self,
        ram: GuestRam,
        tables: TceTables,
        written: Callable[[int, int], None],
        pulse: Callable[[int], None],
        attend: Callable[[], None],
        saved: Sequence[spb.SavedTransport] = (),
    ) -> None:
        self._ram, self._tables = ram, tables
        self._written, self._pulse, self._attend = written, pulse, attend
        self._lock = threading.Lock()
        self._units: dict[int, Transport] = {}
        """Replaced as a whole, so that the vCPU's thread needs no lock."""
        self._sources: dict[int, Transport] = {}
        self._saved = {each.unit_address: each for each in saved}
        self._away: dict[str, float] = {}
        """When each back end that is away went, by name."""
        self._retry: threading.Timer | None = None

    def find(self, unit_address: int) -> Transport | None:
        """Return the transport of a device; the upper half of a register with its address does not count."""
        return self._units.get(unit_address & 0xFFFF_FFFF)

    def window(self, link: LinkStatus, liobn: int) -> TceWindow | None:
        """Return the window of one of a back end's own devices."""
        found = self._units.get(liobn)
        return found.window if found is not None and found.link is link else None

    def interrupts(self, source: int) -> bool:
        """Whether a pulse of a source reaches the guest: its device's signal is on, or it is not of a device with a transport."""
        found = self._sources.get(source)
        return found is None or found.may_interrupt

    # What links say.

    def take(self, link: LinkStatus, *, attached_anew: bool) -> None:
        """Take over what a back end has now.

        Args:
            link: to the back end; its offer has been taken.
            attached_anew: this is a new connection, so that the offer says what devices know of their queues.

        Raises TransportError; nothing has changed then.
        """
        with self._lock:
            declared = {each.unit_address: each for each in link.offer.transports}
            self._check(link, declared.values())
            units = {unit: each for unit, each in self._units.items() if each.link is not link}
            for unit, each in declared.items():
                known = self._units.get(unit)
                if known is not None and _shape(known.declared) == _shape(each):
                    known.declared = each
                    units[unit] = known
                else:
                    units[unit] = self._add(link, each)
            for unit in self._units.keys() - units.keys():
                self._tables.remove(unit)
            self._units = units
            self._sources = {each.declared.interrupt_source: each for each in units.values()}
            self._away.pop(link.name, None)
        if attached_anew:
            for unit in declared:
                _compare(units[unit])

    def _check(self, link: LinkStatus, declared: Iterable[pb.Transport]) -> None:
        for each in declared:
            where = f"its transport {each.unit_address:#x}"
            if not 0 < each.unit_address < 1 << 32 or each.window_bytes % PAGE_BYTES or each.window_bytes > WINDOW_BYTES:
                raise TransportError(f"{where} has a unit address of more than 32 bits, or no DMA window as there are")
            if each.has_queue and not each.window_bytes:
                raise TransportError(f"{where} has a queue and no DMA window that it could be in")
            other = self._units.get(each.unit_address)
            if other is not None and other.link is not link:
                raise TransportError(f"{where} is one of {other.link.name}, too", "give one device another unit address")
        for route in link.offer.routes:
            if route.kind == pb.CALL_KIND_HYPERCALL and route.token in WINDOW_CALLS:
                self._check_keys(link, route)

    def _check_keys(self, link: LinkStatus, route: pb.Route) -> None:
        for unit, each in self._units.items():
            if any(keys.first <= unit <= keys.last for keys in route.keys):
                raise TransportError(
                    f"{hcall_name(route.token)} for key {unit:#x} is claimed by {link.name} and by {each.link.name}'s transport"
                )

    def _add(self, link: LinkStatus, declared: pb.Transport) -> Transport:
        unit, window = declared.unit_address, None
        if declared.window_bytes:
            window = self._tables.add(unit, declared.window_bytes // PAGE_BYTES)
            if window is None:
                raise TransportError("the machine has no room for more DMA windows", "take devices away")
        added = Transport(link, declared, window, None)
        if declared.has_queue and window is not None:

            def pulse() -> None:
                if added.may_interrupt:
                    self._pulse(declared.interrupt_source)

            added.queue = CommandQueue(self._ram, window, self._written, pulse)
        saved = self._saved.pop(unit, None)
        if saved is not None:
            _restore(added, saved)
        elif window is not None:
            window.reset()
        return added

    def put(self, link: LinkStatus, put: pb.CrqEntries) -> None:
        """Put entries into a device's queue. Raises TransportError for a back end that has no such device, or sends too many."""
        found = self._units.get(put.unit_address)
        if found is None or found.link is not link or found.queue is None:
            raise TransportError(f"it puts entries into the queue of {put.unit_address:#x}, which it does not have")
        try:
            found.queue.put(put.entries, put.position)
        except QueueOverrunError as error:
            raise TransportError(str(error)) from error
        if found.queue.holds:
            self._put_held_later()

    def connection_changed(self, link: LinkStatus) -> None:
        """A back end went away or came back."""
        if not link.attached:
            self._away.setdefault(link.name, time.monotonic())

    def is_away(self, link: LinkStatus) -> bool:
        """Whether a back end is away for longer than a guest's commands wait."""
        since = self._away.get(link.name)
        return since is not None and not link.attached and time.monotonic() > since + AWAY_S

    def open_queues(self, link: LinkStatus) -> Sequence[pb.OpenQueue]:
        """Return the queues of a back end's devices that the guest has registered, and that their devices have not lost."""
        return [
            pb.OpenQueue(unit_address=unit, entries=each.queue.entries)
            for unit, each in self._units.items()
            if each.link is link and each.queue is not None and each.queue.is_registered and not each.queue.is_closed
        ]

    # The machine.

    def put_held(self) -> None:
        """Put entries that wait for room, as far as there is some; on the vCPU's thread."""
        holding = [each.queue for each in self._units.values() if each.queue is not None and each.queue.holds]
        for queue in holding:
            queue.put_held()
        if any(queue.holds for queue in holding):
            self._put_held_later()

    def _put_held_later(self) -> None:
        with self._lock:
            if self._retry is None or not self._retry.is_alive():
                self._retry = threading.Timer(HELD_RETRY_S, self._attend)
                self._retry.daemon = True
                self._retry.start()

    def reset(self) -> None:
        """Return every transport to its state at power-on."""
        for each in self._units.values():
            each.reset()

    def save(self) -> Sequence[spb.SavedTransport]:
        """Return the state of all transports, without the contents of windows."""
        saved: list[spb.SavedTransport] = []
        for unit, each in sorted(self._units.items()):
            state = spb.SavedTransport(unit_address=unit, signal_mode=each.signal_mode)
            if each.queue is not None and each.queue.is_registered:
                state.queue.CopyFrom(each.queue.save())
            saved.append(state)
        return saved


def _shape(declared: pb.Transport) -> tuple[int, ...]:
    """Return what must stay as it is for a transport to stay."""
    return (declared.interrupt_source, declared.signal_mask, declared.window_bytes, declared.has_queue)


def _compare(transport: Transport) -> None:
    """Tell the guest if the device has lost sight of its queue."""
    queue = transport.queue
    if queue is not None and queue.is_registered and not queue.is_changing and not transport.declared.queue_open:
        log.info("a device has lost sight of its queue", backend=transport.link.name, unit=hex(transport.unit_address))
        queue.close()


def _restore(transport: Transport, saved: spb.SavedTransport) -> None:
    if saved.signal_mode & ~transport.declared.signal_mask:
        raise TransportError(f"the signal mode of {transport.unit_address:#x} cannot be {saved.signal_mode}")
    transport.signal_mode = saved.signal_mode
    if saved.HasField("queue") and transport.queue is not None:
        try:
            transport.queue.restore(saved.queue)
        except ValueError as error:
            raise TransportError(f"{transport.unit_address:#x}: {error}") from error
