# SPDX-License-Identifier: GPL-2.0-or-later
"""Declarations of the calls that a session owns, and the arguments and results of handlers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from splitvisor.papr.codes import H, RtasStatus
from splitvisor.papr.hcall import hcall_name
from splitvisor.rpc import trap_pb2 as pb


class Support(Enum):
    """The extent to which a call is supported; shown in the generated tables of docs/."""

    FULL = "supported"
    PARTIAL = "partly supported"
    REFUSED = "refused"


@dataclass(frozen=True)
class Operand:
    """Guest memory to send along with a call: a block at an address argument, or at a word of an earlier operand."""

    size: int
    """Bytes; for a string, the limit with its NUL."""
    argument: int | None = None
    """Index of the argument that holds the address: 0 is r4, or an RTAS call's first argument."""
    word: tuple[int, int] | None = None
    """(operand, index): the big-endian 32-bit word of an earlier operand that holds the address."""
    string: bool = False


@dataclass(frozen=True)
class DescribedBuffers:
    """Buffers in a device's DMA window that arguments of a posted call describe, in the form of logical LANs (LoPAPR 16.4).

    The call is posted only when they are as this says; otherwise it is made the synchronous way, and the handler looks at them.
    """

    first: int
    """The first argument that may describe one: 0 is r4. The first that does not, ends them."""
    count: int
    """How many arguments may."""
    min_each: int = 0
    """Bytes that each has at least."""
    alignment: int = 1
    """What each address is a multiple of."""
    min_bytes: int = 0
    """That all together have at least."""
    max_bytes: int = 0
    """That all together have at most. They come as Call.buffers; 0: they do not, and min_each bytes of each are looked at."""


@dataclass(frozen=True)
class Posted:
    """Lets the guest continue at once: with H_SUCCESS while there is credit, with H_BUSY without."""

    credit_bytes: int
    key_argument: int
    key_values: Callable[[Any], Sequence[int]]
    """A function of the session that returns the existing values of key_argument (unit addresses)."""
    size_argument: int = 0
    """Index of the argument with the call's size in bytes, as credit counts it."""
    max_size: int = 0
    """Calls with a larger size are not posted."""
    call_bytes: int = 0
    """Not 0: every call counts so many bytes, and there is no size_argument."""
    at_once: bool = False
    """Sent without waiting for more of its kind: for doorbells."""
    waits_for_credit: bool = False
    """A call without credit is not posted, instead of H_BUSY: for callers that take H_BUSY for an error."""
    buffers: DescribedBuffers | None = None
    """Buffers that travel along, and count as the call's size with call_bytes. key_argument is the device's unit address."""


Keys = Sequence["int | range"]
"""Keys that a session owns: single numbers, and ranges that exclude their end."""


@dataclass(frozen=True)
class Key:
    """Lets several back ends own a call: the key in its arguments selects which.

    Keys are unit addresses, LIOBNs and DRC indexes, which are 32 bits wide (the upper half of a register is ignored), and BUIDs
    of 64. All owners of a call must agree on everything here except `keys`, and on the call's arguments. Keys may change while
    the machine runs: after Vm.inventory_changed() they are read again.
    """

    keys: Callable[[Any], Keys]
    """A function of the session that returns the keys it owns now; at most 256 numbers and ranges."""
    argument: int = 0
    """Index of the argument that is the key: 0 is r4, or an RTAS call's first argument."""
    argument_pair: int | None = None
    """Instead of `argument`: index of the first of two 32-bit arguments, the more significant first (a BUID)."""
    word: tuple[int, int] | None = None
    """Instead of `argument`: (operand, index), a big-endian 32-bit word of an operand of the call."""
    no_owner_result: int | None = None
    """The result for a key without an owner: r3, or the RTAS status. None: H_PARAMETER, or -3."""


@dataclass(frozen=True)
class Mirrored:
    """Lets cpu_service answer an RTAS call that only copies from a byte array (offset, address, length) from its own copy.

    Handlers that change the array report it with Call.mirror_write(); the array must not change otherwise.
    """

    contents: Callable[[Any], bytes]
    """A function of the session that returns the whole array; empty if there is none."""


@dataclass
class Result:
    """A handler's answer."""

    result: int = H.SUCCESS
    """r3 of a hypercall."""
    outputs: Sequence[int] = ()
    """r4 and up of a hypercall; all other registers keep the guest's values."""
    returns: Sequence[int] = ()
    """Return words of an RTAS call, the status first."""


MAX_WRITTEN = 1 << 20
"""Bytes that Call.write() lets one reply write."""


@dataclass(slots=True)
class Call:
    """A hypercall or RTAS call as a handler sees it."""

    vcpu: int
    arguments: Sequence[int]
    """Hypercall: r4 and up, as many as declared, unsigned. RTAS: the argument words."""
    returns: int = 0
    """RTAS: the number of return words that the caller has room for."""
    effects: list[pb.Effect] = field(default_factory=list)
    """Effects that happen together with the reply, in order."""
    sequence: int = 0
    """Number of the call among the vCPU's calls to this back end; unchanged when it is repeated to a new process."""
    buffers: bytes | None = None
    """What the buffers of a posted call held, see DescribedBuffers; None: it is not posted, and the guest waits."""
    writes: list[pb.MemoryBlock] = field(default_factory=list)
    """See write()."""

    def write(self, address: int, data: bytes) -> None:
        """Write guest memory together with the reply, for a call that reads what it writes.

        Through Vm.memory it may be there before the reply: should this process end in between, the call is made again to the next
        one, which would take for the guest's what this one has written.

        Args:
            address: guest physical; the range has passed Vm.memory.check().
            data: MAX_WRITTEN bytes at most with all that the call writes so. A posted call has no reply to write with.

        Raises ValueError for more.
        """
        if sum(len(block.data) for block in self.writes) + len(data) > MAX_WRITTEN:
            raise ValueError(f"a reply writes at most {MAX_WRITTEN} bytes")
        self.writes.append(pb.MemoryBlock(address=address, data=data))

    def interrupt(self, source: int) -> None:
        """Pulse an interrupt source together with the reply."""
        self.effects.append(pb.Effect(interrupt=pb.Interrupt(source=source)))

    def machine_action(self, kind: pb.MachineActionKind, reason: str, *, reason_only: bool = False) -> None:
        """Change the machine's state together with the reply: power off, reset, crash.

        Args:
            kind: what happens.
            reason: in one line for people.
            reason_only: of a crash: registers and traps say nothing about it.
        """
        self.effects.append(pb.Effect(action=pb.MachineAction(kind=kind, reason=reason, reason_only=reason_only)))

    def mirror_write(self, name: str, offset: int, data: bytes) -> None:
        """Change cpu_service's copy of a mirrored array, together with the reply."""
        self.effects.append(pb.Effect(mirror_write=pb.MirrorWrite(name=name, offset=offset, data=data)))

    def post(self, token: int, *arguments: int) -> None:
        """Make a hypercall of another owner after the reply; its answer is discarded."""
        self.effects.append(pb.Effect(invoke=pb.Invoke(token=token, arguments=arguments)))


Handler = Callable[[Any, Call], "Result | int | Awaitable[Result | int]"]
"""A function of (session, call). An int alone is the value of r3, or the status of an RTAS call."""


@dataclass(frozen=True)
class Hypercall:
    """A hypercall that a back end owns."""

    token: int
    handler: Handler
    arguments: int
    section: str
    """The definition of its behaviour: "LoPAPR 16.2.1"."""
    support: Support = Support.FULL
    note: str = ""
    operands: tuple[Operand, ...] = ()
    posted: Posted | None = None
    unavailable_result: int = H.HARDWARE
    """r3 if the back end cannot be reached in time."""
    name: str = ""
    key: Key | None = None
    """None: this back end owns the call whatever its arguments."""
    everybody: bool = False
    """Every back end that declares this gets the call, one after the other, until one refuses."""

    @property
    def call_name(self) -> str:
        """The name as PAPR spells it."""
        return self.name or hcall_name(self.token)

    def failure(self, parameter: bool) -> Result:
        """Return the answer for a failed handler: because of a bad address of the guest, or otherwise."""
        return Result(H.PARAMETER if parameter else H.HARDWARE)


@dataclass(frozen=True)
class RtasCall:
    """An RTAS call that a back end owns."""

    name: str
    handler: Handler
    section: str
    arguments: int | None
    """Words that the caller must pass; None: any number. Another number gets status -3."""
    returns: int | None
    """Return words that the caller must have room for, at least; None: any number."""
    support: Support = Support.FULL
    note: str = ""
    operands: tuple[Operand, ...] = ()
    unavailable_result: int = RtasStatus.HARDWARE_ERROR
    mirrored: Mirrored | None = None
    key: Key | None = None
    """None: this back end owns the call whatever its arguments."""
    everybody: bool = False
    """Every back end that declares this gets the call, one after the other, until one refuses."""

    @property
    def call_name(self) -> str:
        """The name as PAPR spells it."""
        return self.name

    def failure(self, parameter: bool) -> Result:
        """Return the answer for a failed handler: because of a bad address of the guest, or otherwise."""
        return Result(returns=(RtasStatus.PARAMETER_ERROR if parameter else RtasStatus.HARDWARE_ERROR,))
