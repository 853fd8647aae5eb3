# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine from a snapshot: what it is, then its board, filled and attached. Nothing in a snapshot is believed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any, TypeVar

from google.protobuf.message import DecodeError

from cpu_service.engine import layout
from cpu_service.machine.board import Board, BoardOrigin
from cpu_service.machine.boot import spin_table_address
from cpu_service.snapshot.memory import Unpacker
from cpu_service.snapshot.vcpus import restore_vcpus
from splitvisor.machine.snapshot_file import Kind, SnapshotError, Source, parse_machine, read_sections
from splitvisor.rpc import machine_pb2 as mpb
from splitvisor.rpc import state_pb2 as pb

_Message = TypeVar("_Message", bound=Any)


class SnapshotLoader:
    """Reads one snapshot, from its first byte to its last.

    Args:
        source: the snapshot.
        backends: where back ends are now, by name; those that are not listed are where they were.
        moved: the machine stands still at another cpu_service.

    Raises SnapshotError, here and below.
    """

    def __init__(self, source: Source, backends: Mapping[str, str], *, moved: bool) -> None:
        self._sections = read_sections(source)
        self._moved = moved
        self.machine = parse_machine(next(self._sections)[1])
        if self.machine.layout != layout.LAYOUT:
            raise SnapshotError(
                f"the snapshot is from an engine with other registers ({self.machine.layout}, here {layout.LAYOUT}); "
                "restore it with the Splitvisor that it is from"
            )
        self.config = mpb.MachineConfig()
        self.config.CopyFrom(self.machine.config)
        # A recording is of one life: another one would begin the file anew, and what was recorded is lost.
        self.config.ClearField("record_file")
        unknown = sorted(backends.keys() - {backend.name for backend in self.config.backends})
        if unknown:
            known = ", ".join(backend.name for backend in self.config.backends)
            raise SnapshotError(f"the machine of the snapshot has no back end {unknown[0]}", f"it has: {known}")
        for backend in self.config.backends:
            backend.address = backends.get(backend.name, backend.address)
        tokens = [call.token for call in self.machine.rtas_calls]
        if len(set(tokens)) != len(tokens) or max(tokens, default=0) > 0x7FFF_FFFF:
            raise SnapshotError("the snapshot has RTAS tokens that cannot be")
        self._vcpus = _parse(pb.SavedVcpus, self._next(Kind.VCPUS))
        self._interrupts = _parse(pb.SavedInterrupts, self._next(Kind.INTERRUPTS))
        self._first: tuple[Kind, bytes] | None = None
        self._backends = self._read_backends()

    def _next(self, kind: Kind) -> bytes:
        found, payload = next(self._sections, (Kind.END, b""))
        if found is not kind:
            raise SnapshotError(f"the snapshot has no {kind.name.lower()}")
        return payload

    def _read_backends(self) -> dict[str, pb.SavedBackend]:
        names = [backend.name for backend in self.config.backends]
        found: dict[str, pb.SavedBackend] = {}
        for kind, payload in self._sections:
            if kind is not Kind.BACKEND:
                self._first = (kind, payload)
                break
            backend = _parse(pb.SavedBackend, payload)
            found[backend.name] = backend
            if len(found) > len(names):
                break
        if sorted(found) != sorted(names):
            missing = ", ".join(sorted(set(names) - set(found))) or "others"
            raise SnapshotError(f"the snapshot has not the state of every back end: {missing}")
        return found

    @property
    def resets(self) -> int:
        """How often the machine was reset."""
        return self.machine.resets

    def origin(self) -> BoardOrigin:
        """What the board is made with."""
        return BoardOrigin(
            moved=self._moved,
            rtas_tokens={call.name: call.token for call in self.machine.rtas_calls},
            backends=self._backends,
            transports=tuple(self.machine.transports),
        )

    def fill(self, board: Board) -> None:
        """Read the rest into a new board's memory, vCPUs and interrupt controllers. On the vCPU thread."""
        try:
            board.table_resizing.restore(self.machine.hash_table_shift, self.machine.prepared_hash_table_shift)
        except ValueError as error:
            raise SnapshotError(f"the snapshot is damaged: {error}") from error
        self._fill_memory(board)
        if self.config.boot_protocol == mpb.BOOT_PROTOCOL_EPAPR:
            board.make_spin_table(spin_table_address(board.ram.size))
        restore_vcpus(board, self._vcpus)
        try:
            board.xics.restore(self._interrupts)
            board.nmi.restore(self._interrupts.nmi_handlers)
        except ValueError as error:
            raise SnapshotError(f"the snapshot is damaged: {error}") from error

    def _fill_memory(self, board: Board) -> None:
        def store_in_table(address: int, data: memoryview) -> None:
            board.table[address : address + len(data)] = data

        with ExitStack() as stack:
            unpackers = {
                Kind.RAM: stack.enter_context(Unpacker("RAM", board.ram.size, board.ram_file.store)),
                Kind.TCES: stack.enter_context(Unpacker("DMA windows", board.tce_file.size, board.tce_file.store)),
                Kind.HASH_TABLE: stack.enter_context(Unpacker("the page table", board.hash_table.bytes, store_in_table)),
            }
            for kind, payload in self._rest():
                unpackers[kind].add(payload)

    def _rest(self) -> Iterable[tuple[Kind, bytes]]:
        if self._first is not None:
            yield self._first
            self._first = None
        yield from self._sections

    def check_calls(self, board: Board) -> None:
        """See that every call that the guest knows has an owner in an attached board."""
        registry = board.registry
        for call in self.machine.rtas_calls:
            known = registry.rtas.get(call.token)
            if known is None or known.name != call.name:
                raise SnapshotError(f"no back end offers RTAS call {call.name!r}, which the guest knows", _REMEDY)
        missing = sorted(set(self.machine.hypercalls) - set(registry.hypercalls()))
        if missing:
            raise SnapshotError(f"no back end offers hypercall {missing[0]:#x}, which the guest knows", _REMEDY)


_REMEDY = "use the back ends that the machine was saved with"


def _parse(message: type[_Message], payload: bytes) -> _Message:
    try:
        parsed: _Message = message.FromString(payload)
    except DecodeError as error:
        raise SnapshotError(f"the snapshot is damaged: its {message.DESCRIPTOR.name} cannot be read") from error
    return parsed
