# SPDX-License-Identifier: GPL-2.0-or-later
"""A call that a back end owns, bound once when it is offered: what the route says, ready for the way of a trap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from cpu_service.engine.ram import GuestRam
from cpu_service.link.backend_link import BackendLink
from cpu_service.routing.key_table import KeyRange, KeyTable
from cpu_service.routing.posting import Posting
from splitvisor.declarations.guest_memory import LOGICAL_ADDRESS_MASK
from splitvisor.papr.codes import H, RtasStatus
from splitvisor.rpc import trap_pb2 as pb

WORD_MASK = 0xFFFF_FFFF
"""Unit addresses, LIOBNs and DRC indexes are 32 bits wide; hypervisors ignore the upper half of a register that holds one."""


class _Operand(NamedTuple):
    """An OperandSpec, decoded."""

    argument: int | None
    """Index of the argument with the address; None: a word of an earlier operand."""
    operand: int
    offset: int
    """The word's place in that operand, in bytes."""
    size: int
    string: bool


class RemoteCall:
    """A call, or a share of one, that a back end owns.

    Args:
        link: to the back end.
        index: its place in the back end's offer.
        route: what the offer says of it.
    """

    def __init__(self, link: BackendLink, index: int, route: pb.Route) -> None:
        self.link, self.index = link, index
        self.name = route.name
        """As PAPR spells it."""
        self.owner = link.name
        self.is_rtas = route.kind == pb.CALL_KIND_RTAS
        self.arguments = route.arguments
        """Registers that travel with a trap of a hypercall."""
        self.unavailable = route.unavailable_result or (RtasStatus.HARDWARE_ERROR if self.is_rtas else H.HARDWARE)
        """r3, or the RTAS status, when the back end stays away."""
        self.posting = Posting(link, route) if route.HasField("posted") else None
        """How its calls are posted; None: they are not."""
        self._operands = tuple(_decoded(spec) for spec in route.operands)
        self.posted_keys: frozenset[int] = frozenset()
        """Keys whose calls may be posted now."""
        self.keys: Sequence[KeyRange] = ()
        """Keys that the back end owns now; only of a call with a selector."""
        self.made = 0
        """How often it was made; counted only of a shared call, whose token does not say whose it was."""
        self.take_keys(route)

    def take_keys(self, route: pb.Route) -> None:
        """Take over the keys of a route; each attribute is replaced as a whole, so that a call sees one state of it."""
        self.posted_keys = frozenset(route.posted.key_values)
        self.keys = key_ranges(route)

    def operands(self, ram: GuestRam, arguments: Sequence[int]) -> Sequence[pb.MemoryBlock]:
        """Return the memory that travels along; what is not in RAM is left out with all that hangs on it."""
        if not self._operands:
            return ()
        return [block for block in self._blocks(ram, arguments, len(self._operands)) if block is not None]

    def word(self, ram: GuestRam, arguments: Sequence[int], operand: int, index: int) -> int | None:
        """Return a big-endian 32-bit word of an operand; None when it is not in RAM."""
        block = self._blocks(ram, arguments, operand + 1)[operand]
        return None if block is None else _word(block.data, 4 * index)

    def reads_key_as(self, other: RemoteCall, selector: pb.Selector) -> bool:
        """Whether both find the key at the same place: operands up to that of the key are the same."""
        if selector.WhichOneof("key") != "word":
            return True
        upto = selector.word.operand + 1
        return self._operands[:upto] == other._operands[:upto]

    def _blocks(self, ram: GuestRam, arguments: Sequence[int], count: int) -> list[pb.MemoryBlock | None]:
        blocks: list[pb.MemoryBlock | None] = []
        for spec in self._operands[:count]:
            address: int | None = None
            if spec.argument is None:
                base = blocks[spec.operand]
                address = None if base is None else _word(base.data, spec.offset)
            elif spec.argument < len(arguments):
                address = arguments[spec.argument] & LOGICAL_ADDRESS_MASK
            data = b"" if address is None else ram.map[address : address + max(0, min(spec.size, ram.size - address))]
            if spec.string:
                data = data[: data.find(b"\0") + 1] or data
            blocks.append(pb.MemoryBlock(address=address, data=data) if data else None)
        return blocks


def key_ranges(route: pb.Route) -> Sequence[KeyRange]:
    """Return the keys of a route."""
    return tuple(KeyRange(each.first, each.last) for each in route.keys)


class SharedCall:
    """A call whose arguments select one of several owners (trap.proto, Selector).

    Args:
        first: the first owner; the others agree with it.
        selector: how the arguments select.
    """

    def __init__(self, first: RemoteCall, selector: pb.Selector) -> None:
        self.name, self.arguments = first.name, first.arguments
        self.selector = selector
        self.no_owner = selector.no_owner_result or (RtasStatus.PARAMETER_ERROR if first.is_rtas else H.PARAMETER)
        """r3, or the RTAS status, for a key that nobody owns."""
        self.without_owner = 0
        """How often the key was nobody's."""
        self.calls: list[RemoteCall] = [first]
        self._first = first
        self._kind = selector.WhichOneof("key")
        self._at = selector.argument_pair if self._kind == "argument_pair" else selector.argument
        self._table = self.table()

    def table(self, changed: Mapping[RemoteCall, Sequence[KeyRange]] = MappingProxyType({})) -> KeyTable[RemoteCall]:
        """Return who would own which key if some owners had other keys. Raises OverlapError."""
        return KeyTable({call: changed.get(call, call.keys) for call in self.calls})

    def use(self, table: KeyTable[RemoteCall]) -> None:
        """Let the next call find its owner in another table; from any thread."""
        self._table = table

    def select(self, ram: GuestRam, arguments: Sequence[int]) -> Sequence[RemoteCall]:
        """Return whose a call with these arguments is: one owner's, everybody's, or nobody's."""
        at = self._at
        key: int | None
        match self._kind:
            case "argument":
                key = arguments[at] & WORD_MASK if at < len(arguments) else None
            case "argument_pair" if at + 1 < len(arguments):
                key = (arguments[at] & WORD_MASK) << 32 | arguments[at + 1] & WORD_MASK
            case "argument_pair":
                key = None
            case "word":
                key = self._first.word(ram, arguments, self.selector.word.operand, self.selector.word.index)
            case _:
                return self.calls
        owner = None if key is None else self._table.find(key)
        return () if owner is None else (owner,)


def _decoded(spec: pb.OperandSpec) -> _Operand:
    if spec.WhichOneof("base") == "word":
        return _Operand(None, spec.word.operand, 4 * spec.word.index, spec.size, spec.string)
    return _Operand(spec.argument, 0, 0, spec.size, spec.string)


def _word(data: bytes, at: int) -> int | None:
    return int.from_bytes(data[at : at + 4], "big") if at + 4 <= len(data) else None
