# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine that stands still, as a snapshot: its own state, that of every back end, and its memory.

The order matters. Posted calls are drained, then each back end gives its state; the one that has the device trees comes last, for
the others may still be writing to it. Interrupt controllers come after the back ends: a pulse that was under way is in them then.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from cpu_service.engine import layout
from cpu_service.link.backend_link import BackendLink
from cpu_service.machine.board import TREE_OWNER, Board
from cpu_service.snapshot.memory import packed
from cpu_service.snapshot.vcpus import save_vcpus
from splitvisor.machine.snapshot_file import MACHINE_VERSION, Kind, SectionWriter
from splitvisor.rpc import device_tree_pb2 as dt
from splitvisor.rpc import state_pb2 as pb

STATE_TIMEOUT_S = 15.0
"""For the state of a back end."""


class Capture:
    """The state of a machine whose vCPUs stand still. Made, used and released on the vCPU thread, while they do.

    Args:
        board: the machine.
        resets: how many it had.

    Raises BackendUnavailableError when a back end does not give its state; everything goes on then.
    """

    def __init__(self, board: Board, resets: int) -> None:
        self._board = board
        self.ram_bytes = 0
        """Of RAM that is not zero, as far as parts() has come."""
        for link in board.links:
            link.state.hold()
        try:
            self._states = _states(board.links)
        except BaseException:
            self.release()
            raise
        self._machine = pb.SavedMachine(
            version=MACHINE_VERSION,
            config=board.config,
            incarnation=board.incarnation,
            layout=layout.LAYOUT,
            time_ns=time.time_ns(),
            resets=resets,
            rtas_calls=[dt.RtasToken(name=call.name, token=call.token) for call in board.registry.rtas_calls()],
            hypercalls=board.registry.hypercalls(),
            transports=board.transports.save(),
            hash_table_shift=board.hash_table.shift,
            prepared_hash_table_shift=board.table_resizing.prepared_shift,
        )
        self._interrupts = board.xics.save()
        self._interrupts.nmi_handlers.extend(board.nmi.handlers or ())
        self._vcpus = save_vcpus(board)

    def parts(self) -> Iterator[bytes]:
        """Yield the snapshot, part by part."""
        writer, board = SectionWriter(), self._board
        yield writer.header()
        yield writer.section(Kind.MACHINE, self._machine.SerializeToString())
        yield writer.section(Kind.VCPUS, self._vcpus.SerializeToString())
        yield writer.section(Kind.INTERRUPTS, self._interrupts.SerializeToString())
        for link in board.links:
            backend = pb.SavedBackend(
                name=link.name, backend=link.offer.backend, devices=link.offer.devices, state=self._states[link.name]
            )
            yield from _cut(writer.section(Kind.BACKEND, backend.SerializeToString()))
        for pages in packed(board.ram_file.map, board.ram_file.used(), self._count):
            yield writer.section(Kind.RAM, pages)
        for pages in packed(board.table, [(0, board.hash_table.bytes)], lambda _size: None):
            yield writer.section(Kind.HASH_TABLE, pages)
        for pages in packed(board.tce_file.map, board.tce_file.used(), lambda _size: None):
            yield writer.section(Kind.TCES, pages)
        yield writer.end()

    def _count(self, size: int) -> None:
        self.ram_bytes += size

    def release(self) -> None:
        """Let the back ends go on."""
        for link in self._board.links:
            link.state.release()

    def take_back(self) -> None:
        """Let the back ends go on, though another cpu_service may have taken over the sessions there: they are restored."""
        self._board.incarnation = max(time.time_ns(), self._board.incarnation) + CLOCK_DIFFERENCE_NS
        for link in self._board.links:
            link.state.take_back(self._states[link.name], self._board.incarnation)


CLOCK_DIFFERENCE_NS = 60 * 10**9
"""By how much another host's clock may be ahead: incarnations are times, and ours must be the higher one."""
PART_BYTES = 1 << 20


def _states(links: Sequence[BackendLink]) -> dict[str, bytes]:
    """Every back end's state by name, that of the trees' owner last. Raises BackendUnavailableError."""
    states: dict[str, bytes] = {}
    with ThreadPoolExecutor(max(1, len(links)), "save") as pool:
        for is_owner in (False, True):
            group = [link for link in links if (link.offer.backend == TREE_OWNER) == is_owner]
            saved = pool.map(lambda link: link.state.save(STATE_TIMEOUT_S), group)
            states.update(zip([link.name for link in group], saved, strict=True))
    return states


def _cut(section: bytes) -> Iterator[bytes]:
    for start in range(0, len(section), PART_BYTES):
        yield section[start : start + PART_BYTES]
