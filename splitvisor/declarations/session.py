# SPDX-License-Identifier: GPL-2.0-or-later
"""One VM at a back end: what a device author subclasses, and the VM as it sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from splitvisor.declarations.calls import Hypercall, RtasCall
from splitvisor.declarations.guest_memory import GuestMemory
from splitvisor.declarations.state import StateError
from splitvisor.rpc import trap_pb2 as pb


class Vm(ABC):
    """A VM as a session sees it. It outlives connections: what is sent while cpu_service is away arrives when it is back."""

    name: str
    incarnation: int
    vcpus: int
    devices: Sequence[pb.DeviceSpec]
    """Those that the machine's configuration places at this back end."""
    slots: range
    """Slots of the VIO bus that this back end may fill; empty: none."""
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

    calls: tuple[Hypercall | RtasCall, ...] = ()
    """Every call that this back end owns, or has a share of; the same for the session's life."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm

    def nodes(self) -> Sequence[pb.TreeNode]:
        """Device-tree nodes that this back end adds to the seed tree, parents first; see Vm.inventory_changed."""
        return ()

    def inventory(self) -> Sequence[pb.DeviceSpec]:
        """The devices: what Vm.devices must be for a session that takes this one's place, should this process end."""
        return self.vm.devices

    @property
    def uncommitted(self) -> bool:
        """Whether commit() is due before the calls handled so far are acknowledged or answered."""
        return False

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
