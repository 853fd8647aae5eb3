# SPDX-License-Identifier: GPL-2.0-or-later
"""What a trap back end is made of: a Session per VM and a table of the calls that it owns.

A device in short::

    class Counter(Session):
        def __init__(self, vm: Vm) -> None:
            super().__init__(vm)
            self.value = 0

        def count(self, call: Call) -> Result:
            self.value += call.arguments[0]
            return Result(outputs=(self.value,))

        calls = (Hypercall(0xF100, count, arguments=1, section="an example", name="H_COUNT"),)

    if __name__ == "__main__":
        Backend("counter", Counter).serve()

A handler is a function of (session, call), plain or `async` (it must be async to use guest memory). It returns a Result, or an
int alone: the value for r3, or the status of an RTAS call. Handlers of one VM never overlap.
"""

from __future__ import annotations

import struct
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from splitvisor.guest_memory import GuestMemory
from splitvisor.papr.codes import H, RtasStatus
from splitvisor.papr.hcall import hcall_name
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.service_names import BACKEND_NAME
from splitvisor.session_state import StateError

if TYPE_CHECKING:
    from splitvisor.trap_server import TrapServicer


class Support(Enum):
    """How far a call is supported; the generated tables of docs/ show it."""

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
class Posted:
    """Lets a call's guest go on at once: H_SUCCESS while there is credit, H_BUSY without."""

    credit_bytes: int
    key_argument: int
    size_argument: int
    max_size: int
    key_values: Callable[[Any], Sequence[int]]
    """Given the session, the values of key_argument (unit addresses) that exist."""


@dataclass(frozen=True)
class Mirrored:
    """Lets cpu_service answer an RTAS call that only copies from a byte array (offset, address, length) from a copy of its own.

    Handlers that change the array tell it with Call.mirror_write(); the array has no other way to change.
    """

    contents: Callable[[Any], bytes]
    """Given the session, the whole array; empty when there is none."""


@dataclass
class Result:
    """What a handler answers."""

    result: int = H.SUCCESS
    """r3 of a hypercall."""
    outputs: Sequence[int] = ()
    """r4 and up of a hypercall; registers that are not listed keep the guest's values."""
    returns: Sequence[int] = ()
    """Return words of an RTAS call, the status first."""


@dataclass(slots=True)
class Call:
    """A hypercall or RTAS call as a handler sees it."""

    vcpu: int
    arguments: Sequence[int]
    """Hypercall: r4 and up, as many as the route asked for, unsigned. RTAS: the argument words."""
    returns: int = 0
    """RTAS: return words that the caller has room for."""
    effects: list[pb.Effect] = field(default_factory=list)
    """What happens together with the reply, in order."""
    sequence: int = 0
    """Of the vCPU's calls to this back end; the same again when a call is repeated to a process that knows nothing of it."""

    def interrupt(self, source: int) -> None:
        """Pulse an interrupt source together with the reply."""
        self.effects.append(pb.Effect(interrupt=pb.Interrupt(source=source)))

    def machine_action(self, kind: pb.MachineActionKind, reason: str) -> None:
        """Change the machine's state together with the reply: power off, reset, crash."""
        self.effects.append(pb.Effect(action=pb.MachineAction(kind=kind, reason=reason)))

    def mirror_write(self, name: str, offset: int, data: bytes) -> None:
        """Change cpu_service's copy of what a mirrored call reads, together with the reply."""
        self.effects.append(pb.Effect(mirror_write=pb.MirrorWrite(name=name, offset=offset, data=data)))

    def post(self, token: int, *arguments: int) -> None:
        """Make a hypercall of another owner after the reply, without its answer."""
        self.effects.append(pb.Effect(invoke=pb.Invoke(token=token, arguments=arguments)))


Handler = Callable[[Any, Call], "Result | int | Awaitable[Result | int]"]


@dataclass(frozen=True)
class Hypercall:
    """A hypercall that a back end owns."""

    token: int
    handler: Handler
    arguments: int
    section: str
    """Where its behaviour is defined: "LoPAPR 16.2.1"."""
    support: Support = Support.FULL
    note: str = ""
    operands: tuple[Operand, ...] = ()
    posted: Posted | None = None
    unavailable_result: int = H.HARDWARE
    """r3 when the back end stays away."""
    name: str = ""

    @property
    def call_name(self) -> str:
        """The name as PAPR spells it."""
        return self.name or hcall_name(self.token)

    def failure(self, parameter: bool) -> Result:
        """The answer when the handler failed: on a bad address of the guest, or otherwise."""
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

    @property
    def call_name(self) -> str:
        """The name as PAPR spells it."""
        return self.name

    def failure(self, parameter: bool) -> Result:
        """The answer when the handler failed: on a bad address of the guest, or otherwise."""
        return Result(returns=(RtasStatus.PARAMETER_ERROR if parameter else RtasStatus.HARDWARE_ERROR,))


class Vm(ABC):
    """A VM as a session sees it. It outlives connections: what is sent while cpu_service is away arrives when it is back."""

    name: str
    incarnation: int
    vcpus: int
    devices: Sequence[pb.DeviceSpec]
    memory: GuestMemory
    moved: bool = False
    """Session.restore() gets the state of a moment ago from another cpu_service, not an older one from a file."""

    @abstractmethod
    def interrupt(self, source: int) -> None:
        """Pulse an interrupt source, at any time."""

    @abstractmethod
    def machine_action(self, kind: pb.MachineActionKind, reason: str) -> None:
        """Change the machine's state, at any time."""

    @abstractmethod
    def inventory_changed(self) -> None:
        """Tell that Session.nodes() or inventory() has changed: what they return now is for the next reset, and the next life."""

    @abstractmethod
    async def invoke(self, token: int, *arguments: int) -> tuple[int, Sequence[int]]:
        """Make a hypercall that another part of the machine owns; only inside a handler. Returns r3 and r4 and up."""


class Session:
    """One VM's state at one back end. Made at the VM's first attach, kept over reconnects."""

    calls: ClassVar[tuple[Hypercall | RtasCall, ...]] = ()
    """Every call that this back end owns."""
    uncommitted = False
    """True: commit() is due before the calls handled so far are acknowledged or answered."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm

    def nodes(self) -> Sequence[pb.TreeNode]:
        """Device-tree nodes that this back end adds to the seed tree, parents first; see Vm.inventory_changed."""
        return ()

    def inventory(self) -> Sequence[pb.DeviceSpec]:
        """The devices: what Vm.devices must be for a session that takes this one's place, should this process end."""
        return self.vm.devices

    def commit(self) -> None:
        """Make lasting what calls did, and `uncommitted` False; once for all calls of a batch."""

    async def reset(self) -> None:
        """Bring devices to their power-on state: at the machine's start and at each reset, before the guest runs."""

    async def attached(self) -> None:
        """Told at each attach, the first included, after the offer was sent."""

    async def save(self) -> bytes:
        """Return everything that a new session needs to go on in this one's place: a message with a version.

        No call is under way, and none comes before resumed(). What comes from elsewhere, such as typed input, must wait until
        then, or be lost. At most 64 MiB. A session that keeps nothing between calls need not do anything.
        """
        return b""

    async def resumed(self) -> None:
        """The VM goes on after save(), or runs after restore()."""

    async def restore(self, state: bytes) -> None:
        """Take over what save() has returned, elsewhere or in another version of this program. Comes before anything else.

        Guest memory is not there yet, and what comes from elsewhere must wait until resumed(). Raises StateError when the state
        does not fit, and the session is closed then.
        """
        if state:
            raise StateError(f"{type(self).__name__} keeps no state, but one was saved; use the back end that it is from")

    async def replaced(self) -> None:
        """A newer life of cpu_service has taken this VM to a new session; this one ends."""
        await self.close()

    async def close(self) -> None:
        """The VM has ended; what must outlive it is made durable before this returns."""


PropertyValue = bytes | str | int | Sequence[int]


def tree_node(path: str, properties: Mapping[str, PropertyValue]) -> pb.TreeNode:
    """Describe a device-tree node for Session.nodes().

    Args:
        path: the full path, such as "/vdevice/echo@30000000"; its parent is there, or comes before it.
        properties: by name, in order. A text gets its NUL, a number is one cell (32 bits, big-endian), numbers are as many cells,
            bytes are taken as they are.

    Raises struct.error for a number that does not fit a cell.
    """
    encoded = [pb.TreeProperty(name=name, value=_property_value(value)) for name, value in properties.items()]
    return pb.TreeNode(path=path, properties=encoded)


def _property_value(value: PropertyValue) -> bytes:
    match value:
        case bytes():
            return value
        case str():
            return value.encode() + b"\0"
        case int():
            return struct.pack(">I", value)
        case _:
            return struct.pack(f">{len(value)}I", *value)


@dataclass(frozen=True)
class Backend:
    """A back end: what serves a kind of session to any number of VMs.

    Raises ValueError for a name that is not 1 to 63 of a-z, 0-9, '-' and '_', a letter first.
    """

    name: str
    """In logs and errors, and as `splitvisor run --backend NAME=ADDRESS` calls it."""
    factory: Callable[[Vm], Session]
    """Makes the session of a VM; a Session class, most often. A ValueError that it raises refuses the VM and says why."""

    def __post_init__(self) -> None:
        if not BACKEND_NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name of a back end; give 1 to 63 of a-z, 0-9, '-' and '_', a letter first")

    def servicer(self) -> TrapServicer:
        """Return the gRPC servicer of TrapService, for programs that have a server of their own; they must close() it."""
        from splitvisor.trap_server import TrapServicer  # gRPC is slow to load, and a module that only declares does not need it

        return TrapServicer(self.name, self.factory)

    def serve(self, arguments: Sequence[str] | None = None) -> NoReturn:
        """Be a service until SIGTERM or SIGINT, then exit: 0, 2 bad usage, 4 it could not start.

        It listens at --listen, or at NAME.sock in this user's directory for services, with health checking, reflection and logs
        as every service of Splitvisor has them; --help lists the flags.

        Args:
            arguments: the flags; those of this process when not given.
        """
        from splitvisor.backend_service import BackendService
        from splitvisor.service_main import run

        sys.exit(run(BackendService(self), sys.argv[1:] if arguments is None else arguments))
