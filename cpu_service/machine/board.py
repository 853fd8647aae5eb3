# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of a machine, put together: RAM, engine, page table, interrupt controller, scheduler, registry, back ends."""

from __future__ import annotations

import mmap
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import structlog

from cpu_service.engine.engine import Engine, sdr1
from cpu_service.engine.layout import SPR_SDR1
from cpu_service.engine.ram import GuestRam
from cpu_service.hypercalls.firmware_assisted_nmi import FirmwareAssistedNmi
from cpu_service.hypercalls.hash_page_table import HashPageTable, table_shift
from cpu_service.hypercalls.hash_page_table_resize import HashPageTableResizing
from cpu_service.hypercalls.logical_memory import LogicalMemory
from cpu_service.hypercalls.processor import ProcessorHypercalls
from cpu_service.hypercalls.start_cpu import ProcessorRtas
from cpu_service.hypercalls.virtual_processor_area import VirtualProcessorAreas
from cpu_service.hypercalls.watchdog import Action, Watchdog
from cpu_service.hypercalls.xics import Xics
from cpu_service.link.backend_link import BackendLink
from cpu_service.link.connection import MessageTap
from cpu_service.link.errors import BackendUnavailableError
from cpu_service.link.events import LinkStatus
from cpu_service.machine.placement import placed_at, vio_slots
from cpu_service.observe.trap_trace import TrapTrace
from cpu_service.routing.registry import Registry, RegistryError
from cpu_service.routing.router import TrapRouter
from cpu_service.transports.calls import TransportCalls
from cpu_service.transports.transports import Transports
from cpu_service.vcpus.scheduler import VcpuScheduler
from cpu_service.vcpus.spin_table import SpinTable
from cpu_service.vcpus.timebase import Timebase
from splitvisor.errors.problem import ProblemError
from splitvisor.process.text import is_text
from splitvisor.rpc import machine_pb2 as mpb
from splitvisor.rpc import state_pb2 as spb
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.ram_file import RAM_SUFFIX, RamFile
from splitvisor.trap.tce_file import FILE_BYTES, TCE_SUFFIX, TceTables, TceWindow

if TYPE_CHECKING:
    from cpu_service.observe.recorder import Recorder

ATTACH_TIMEOUT_S = 8.0
"""How long a back end may take to be there at the machine's start."""
TREE_OWNER = "hcall_service"
"""The back end (by its offer) that has the device-tree store."""
MIB = 1 << 20
WATCHDOG_ACTIONS: dict[int, Action | None] = {
    mpb.WATCHDOG_ACTION_UNSPECIFIED: None,
    mpb.WATCHDOG_ACTION_RESET: Action.RESTART,
    mpb.WATCHDOG_ACTION_POWER_OFF: Action.POWER_OFF,
    mpb.WATCHDOG_ACTION_NMI: Action.DUMP_RESTART,
    mpb.WATCHDOG_ACTION_LOG: Action.LOG,
}
"""What a machine's configuration can say about expired watchdog timers; None: as the guest says."""
_MACHINE_ACTIONS = {
    Action.POWER_OFF: pb.MACHINE_ACTION_KIND_POWER_OFF,
    Action.RESTART: pb.MACHINE_ACTION_KIND_RESET,
}

log = structlog.get_logger()


class NoMemoryError(ProblemError):
    """The host has no place for the guest's memory."""


class BoardEvents(Protocol):
    """What the board tells the machine."""

    def action(self, action: pb.MachineAction) -> None:
        """A call or a back end changes the machine's state."""

    def connection_changed(self, link: LinkStatus) -> None:
        """A back end went away or came back."""


@dataclass(frozen=True)
class BoardOrigin:
    """What a restored machine's board has from the saved one."""

    moved: bool = False
    """From a cpu_service that has the machine standing still."""
    rtas_tokens: Mapping[str, int] = field(default_factory=dict)
    backends: Mapping[str, spb.SavedBackend] = field(default_factory=dict)
    """By the name in the configuration."""
    transports: Sequence[spb.SavedTransport] = ()


class Board:
    """A machine's parts. Everything but attach() and the events of links belongs to the vCPU thread.

    Args:
        config: the machine.
        incarnation: of it, as its back ends know it.
        runtime_dir: where the file of guest RAM is made.
        events: told what happens.
        origin: what the machine is restored from; None: it starts as configured.
    """

    spin_table: SpinTable | None = None
    """None: vCPUs are started by calls."""

    def __init__(
        self,
        config: mpb.MachineConfig,
        incarnation: int,
        runtime_dir: Path,
        events: BoardEvents,
        origin: BoardOrigin | None = None,
    ) -> None:
        self.config = config
        self._events = events
        self._vcpu_thread = threading.get_ident()
        size = config.memory_mib * MIB
        self._ram_path = runtime_dir / f"{config.name}-{secrets.token_hex(16)}{RAM_SUFFIX}"
        self.ram_file = _create_ram(self._ram_path, size)
        # A path that is no text cannot be told to back ends.
        private = config.private_memory or bool(config.record_file) or not is_text(str(self._ram_path))
        self._tce_path = self._ram_path.with_suffix(TCE_SUFFIX)
        self.tce_file = _create_ram(self._tce_path, FILE_BYTES)
        if private:
            self._ram_path.unlink()
            self._tce_path.unlink()
        self.ram = GuestRam(self.ram_file.map)
        shift = table_shift(size)
        self.table = _create_table(2 << shift)
        """Room for a page table that the guest has made twice as large as it was."""
        for area in (self.ram_file.map, self.table):
            with suppress(OSError):
                area.madvise(mmap.MADV_HUGEPAGE)
        self.engine = Engine(self.ram_file.map, self.table)
        self.ram.on_write = self.engine.invalidate_code
        self.timebase = Timebase(self.engine)
        self.scheduler = VcpuScheduler(self.engine, self.timebase, config.vcpus)
        self.scheduler.on_attention, self.scheduler.on_idle = self._attend, self._read_idle
        self._make_page_table(shift)
        self.xics = Xics(config.vcpus, self.scheduler.line, self.timebase.read)
        origin = origin or BoardOrigin()
        self.registry = Registry(origin.rtas_tokens)
        self.router: TrapRouter | None = None
        """None until the back ends are attached."""
        self.trace: TrapTrace | None = None
        """As the router."""
        self.nmi = FirmwareAssistedNmi(self.ram)
        self.scheduler.on_system_reset = self.nmi.enter_system_reset
        self.watchdog = Watchdog(self.scheduler.alarms, self._bite, WATCHDOG_ACTIONS[config.watchdog_action])
        self._add_processor_calls()
        self._written: list[tuple[int, int]] = []
        self._written_lock = threading.Lock()
        self._queues_wait = False
        """Queue entries may have room now."""
        self.transports = Transports(
            self.ram, TceTables(self.tce_file.map), self.memory_written, self._pulse, self._look_at_queues, origin.transports
        )
        self._transport_calls = TransportCalls(self.transports, self.ram)
        self.registry.add_local(self._transport_calls.calls())
        hello = pb.Hello(
            vm=config.name,
            incarnation=incarnation,
            vcpus=config.vcpus,
            ram_bytes=size,
            ram_path="" if private else str(self._ram_path),
            tce_path="" if private else str(self._tce_path),
            beginning=pb.BEGINNING_MOVED if origin.moved else pb.BEGINNING_RESTORED,  # With a saved state; else the link says.
        )
        self.recorder = _recorder(config)
        """None: this machine is not recorded."""
        self.incarnation = incarnation
        """Higher than the machine's once it was taken back from another cpu_service."""
        self.links = self._links(hello, origin)
        tree_owners = {name for name, saved in origin.backends.items() if saved.backend == TREE_OWNER}
        self._restored_first = [link for link in self.links if link.name in tree_owners]

    def _make_page_table(self, shift: int) -> None:
        self.hash_table = HashPageTable(self.table, shift, self.ram, self.engine.flush_tlb, self._use_table)
        self.table_resizing = HashPageTableResizing(self.hash_table, _create_table)
        self.engine.use_table(self.hash_table.bytes)
        self.engine.answer_page_table_calls(native=True)

    def _add_processor_calls(self) -> None:
        """Register the calls that need the processor's state."""
        areas = VirtualProcessorAreas(self.scheduler.vcpus, self.ram)
        self.scheduler.on_dispatch = areas.dispatched
        for part in (
            self.hash_table,
            self.table_resizing,
            self.xics,
            areas,
            self.nmi,
            self.watchdog,
            ProcessorHypercalls(self.scheduler, areas),
            ProcessorRtas(self.scheduler, self.ram),
            LogicalMemory(self.ram),
        ):
            self.registry.add_local(part.calls())

    def _links(self, hello: pb.Hello, origin: BoardOrigin) -> list[BackendLink]:
        backends, recorder = self.config.backends, self.recorder
        taps = [None if recorder is None else recorder.tap(index) for index in range(len(backends))]
        slots = vio_slots(backends)
        return [
            self._link(backend, hello, slots[backend.name], origin.backends.get(backend.name), tap)
            for backend, tap in zip(backends, taps, strict=True)
        ]

    def _link(
        self,
        backend: mpb.BackendAddress,
        hello: pb.Hello,
        slots: pb.SlotRange,
        saved: spb.SavedBackend | None,
        tap: MessageTap | None,
    ) -> BackendLink:
        own = pb.Hello(slots=slots)
        own.MergeFrom(hello)
        own.devices.extend(placed_at(backend.name, self.config.devices) if saved is None else saved.devices)
        if saved is None:
            return BackendLink(backend.name, backend.address, own, self.ram, self, tap=tap)
        return BackendLink(backend.name, backend.address, own, self.ram, self, saved.state, tap)

    def attach(self) -> None:
        """Attach every back end at the same time, and register what they own. Restored trees come before those who read them.

        Raises BackendUnavailableError, BackendRefusedError and RegistryError.
        """
        for group in (self._restored_first, [link for link in self.links if link not in self._restored_first]):
            for link in group:
                link.begin()
            for link in group:
                link.wait_attached(ATTACH_TIMEOUT_S)
        for link in self.links:
            self.registry.add_offer(link)
        self.router = TrapRouter(self.registry, self.scheduler, self.ram, self, self.transports.window, self.engine.native_calls)
        self._transport_calls.forward = self.router.forward
        self.engine.on_hypercall = self.router.dispatch
        self.trace = TrapTrace(self.engine, self.registry, self.scheduler, self.ram)

    def power_on(self) -> None:
        """Bring RAM, page table and interrupt controller to their power-on state; links and vCPUs are reset by the machine."""
        self.ram.clear()
        self.table_resizing.reset()
        self.hash_table.reset()
        self.xics.reset()
        self.transports.reset()
        self.nmi.reset()
        self.watchdog.reset()

    def make_spin_table(self, address: int) -> SpinTable:
        """Have a spin table there, whose stores start vCPUs."""
        self.spin_table = table = SpinTable(self.ram, self.scheduler, address)
        self.engine.watch(address)
        self.scheduler.on_watched_store = lambda: table.stored(self.scheduler.current)
        return table

    def _bite(self, action: Action, reason: str) -> None:
        """Carry out what a watchdog timer does when it expires."""
        if action in _MACHINE_ACTIONS:
            self._events.action(pb.MachineAction(kind=_MACHINE_ACTIONS[action], reason=reason))
        elif action is Action.DUMP_RESTART:
            for vcpu in self.scheduler.vcpus:
                self.scheduler.system_reset(vcpu)

    def _use_table(self, size: int) -> None:
        self.engine.use_table(size)
        self.scheduler.each_spr(SPR_SDR1, lambda _: sdr1(size))

    def close(self, reason: str) -> None:
        """Detach the back ends and remove the file of guest RAM."""
        for link in self.links:
            link.close(reason)
        self.scheduler.close()
        if self.recorder is not None:
            self.recorder.close(reason, () if self.router is None else self.router.call_counts())
        for path in (self._ram_path, self._tce_path):
            path.unlink(missing_ok=True)
        self.ram_file.close_file()
        self.tce_file.close_file()

    def _read_idle(self, done: Callable[[], bool], deadline: float, nudge: int) -> bool:
        """Read, while no vCPU can run, the connection to the back end that interrupted last; see VcpuScheduler.on_idle."""
        latest = max(self.links, key=lambda link: link.interrupted_at, default=None)
        return latest is not None and latest.read_idle(done, deadline, nudge)

    # What links and replies report.

    def interrupt(self, source: int) -> None:
        """Pulse an interrupt source, unless the guest has turned its device's signal off; from any thread."""
        if self.transports.interrupts(source):
            self._pulse(source)

    def _pulse(self, source: int) -> None:
        if not self.xics.pulse(source):
            log.warning("a back end pulsed an interrupt source that does not exist", source=hex(source))

    def action(self, action: pb.MachineAction) -> None:
        """Change the machine's state; from any thread."""
        self._events.action(action)

    def connection_changed(self, link: LinkStatus) -> None:
        """A back end went away or came back."""
        self.transports.connection_changed(link)
        self._events.connection_changed(link)

    def offer_changed(self, link: LinkStatus, *, attached_anew: bool) -> None:
        """A back end owns other devices. Raises BackendUnavailableError when it claims another's; from any thread."""
        try:
            self.registry.take_keys(link)
        except RegistryError as error:
            raise BackendUnavailableError(str(error)) from error
        self.transports.take(link, attached_anew=attached_anew)

    def put_entries(self, link: LinkStatus, entries: pb.CrqEntries) -> None:
        """A device has entries for its queue. Raises BackendUnavailableError; from any thread."""
        self.transports.put(link, entries)

    def open_queues(self, link: LinkStatus) -> Sequence[pb.OpenQueue]:
        """Return the queues of a back end's devices that the guest has registered; from any thread."""
        return self.transports.open_queues(link)

    def window(self, link: LinkStatus, liobn: int) -> TceWindow | None:
        """Return the DMA window of one of a back end's devices; from any thread."""
        return self.transports.window(link, liobn)

    def memory_written(self, address: int, length: int) -> None:
        """A back end wrote RAM: forget code translated from there; from any thread."""
        if address + length > self.ram.size:
            return
        if threading.get_ident() == self._vcpu_thread:
            self.engine.invalidate_code(address, length)
            return
        with self._written_lock:
            self._written.append((address, length))
        self.scheduler.raise_attention(wakes=False)

    def _look_at_queues(self) -> None:
        self._queues_wait = True
        self.scheduler.raise_attention()

    def _attend(self) -> None:
        """Do what other threads have left for the vCPU's."""
        with self._written_lock:
            written, self._written = self._written, []
        for address, length in written:
            self.engine.invalidate_code(address, length)
        if self._queues_wait:
            self._queues_wait = False
            self.transports.put_held()


def _create_ram(path: Path, size: int) -> RamFile:
    """Make the file of guest RAM. Raises NoMemoryError."""
    try:
        return RamFile.create(path, size)
    except OSError as error:
        path.unlink(missing_ok=True)
        remedy = "give less --memory, or the cpu_service another --ram-dir"
        raise NoMemoryError(f"guest RAM: {size // MIB} MiB in {path.parent}: {error.strerror or error}", remedy) from error


def _create_table(size: int) -> mmap.mmap:
    """Make room for the page table. Raises NoMemoryError."""
    try:
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise NoMemoryError(f"page table: {size // MIB} MiB: {error.strerror or error}", "give less --memory") from error


def _recorder(config: mpb.MachineConfig) -> Recorder | None:
    if not config.record_file:
        return None
    from cpu_service.observe.recorder import Recorder  # few machines are recorded

    return Recorder(Path(config.record_file), config)
