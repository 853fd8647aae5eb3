# SPDX-License-Identifier: GPL-2.0-or-later
"""One VM at a back end: Session, for device authors to subclass, and Vm."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from splitvisor.declarations.calls import Hypercall, RtasCall
from splitvisor.declarations.dma import DmaWindow
from splitvisor.declarations.guest_memory import GuestMemory
from splitvisor.declarations.state import StateError
from splitvisor.rpc import trap_pb2 as pb


class Vm(ABC):
    """A VM for its session. It outlives connections: events sent while cpu_service is away arrive when it is back."""

    name: str
    incarnation: int
    vcpus: int
    devices: Sequence[pb.DeviceSpec]
    """Devices that the machine's configuration places at this back end."""
    slots: range
    """Slots of the VIO bus that this back end may fill; empty: none."""
    memory: GuestMemory
    open_queues: Mapping[int, int] = MappingProxyType({})
    """By unit address of the devices whose queue is registered: how many entries had come, all as of the last attach."""
    moved: bool = False
    """Whether Session.restore() gets the current state from another cpu_service, not an older state from a file."""

    @abstractmethod
    def interrupt(self, source: int) -> None:
        """Pulse an interrupt source, at any time."""

    @abstractmethod
    def machine_action(self, kind: pb.MachineActionKind, reason: str) -> None:
        """Change the machine's state, at any time."""

    @abstractmethod
    def dma_window(self, unit_address: int) -> DmaWindow:
        """Return the DMA window of a device that has one in Session.transports()."""

    @abstractmethod
    def soon(self, call: Callable[[], None]) -> None:
        """Call once the requests that have come together are taken: what they ask for can be answered together then."""

    @abstractmethod
    def put_entries(self, unit_address: int, position: int, entries: bytes) -> None:
        """Put entries of 16 bytes into a device's command/response queue, at any time; see Session.transports().

        While cpu_service is away this has no effect: Session.attached() is the time to say again what is missing.

        Args:
            unit_address: of the device.
            position: the number of entries before these since the guest registered the queue.
            entries: one or more.
        """

    @abstractmethod
    def inventory_changed(self) -> None:
        """Report a change of Session.nodes(), Session.inventory(), Session.transports() or keys.

        New nodes take effect at the next reset, new keys from the next call on, and the inventory in a restarted process.
        """

    @abstractmethod
    async def invoke(self, token: int, *arguments: int) -> tuple[int, Sequence[int]]:
        """Make a hypercall that another back end owns, or H_RTAS; only inside a handler. Returns (r3, values of r4 and up).

        The owner sees what this handler has written, and the handler what the owner writes.
        """


class Session:
    """One VM's state at one back end. Created at the VM's first attach, kept across reconnects."""

    calls: tuple[Hypercall | RtasCall, ...] = ()
    """Every call that this back end owns or shares; constant for the session's life."""

    pauses: bool = False
    """Whether devices may pause the machine (Vm.machine_action() with PAUSE), and are told by continued() that it goes on."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm

    def nodes(self) -> Sequence[pb.TreeNode]:
        """Return the device-tree nodes that this back end adds to the seed tree, parents first; see Vm.inventory_changed."""
        return ()

    def inventory(self) -> Sequence[pb.DeviceSpec]:
        """Return the devices: Vm.devices for a session that replaces this one if the process ends."""
        return self.vm.devices

    def transports(self) -> Sequence[pb.Transport]:
        """Return what cpu_service keeps for this session's devices: DMA windows, queues, signals; see Vm.inventory_changed."""
        return ()

    @property
    def uncommitted(self) -> bool:
        """Whether commit() is due before the calls handled so far are acknowledged or answered."""
        return False

    def commit(self) -> None:
        """Make the effects of calls durable, and `uncommitted` False; called once for all calls of a batch."""

    async def begin(self) -> None:
        """Open what the session needs on the host; called once, before the first offer, or else restore() does it.

        Raises ValueError to refuse the VM; close() is called then.
        """

    async def reset(self) -> None:
        """Bring devices to their power-on state: at the machine's start and at each reset, before the guest runs."""

    async def attaching(self) -> None:
        """Called at each attach but one with restore(), before the offer is made; Vm.open_queues is known."""

    async def attached(self) -> None:
        """Called at each attach, including the first, after the offer was sent."""

    async def drain(self) -> None:
        """Finish what devices are doing by themselves; called before save(), while guest memory may still be written.

        What is not finished after some seconds is a StateError: the machine is not saved then, and goes on.
        """

    async def save(self) -> bytes:
        """Return the state with which a new session can replace this one: a message with a version.

        No call is in progress, and none arrives before resumed(). Other events, such as typed input, must wait until
        then, or be lost. At most 64 MiB. A session without state between calls need not override this.
        """
        return b""

    async def resumed(self) -> None:
        """Called when the VM continues after save(), or runs after restore()."""

    def continued(self) -> None:
        """Called when the machine goes on after a pause, and at each attach to a machine that is not paused."""

    async def restore(self, state: bytes) -> None:
        """Take over a result of save(), possibly of another version of this program. Called before anything else.

        Guest memory is not available yet, and other events must wait until resumed(). Raises StateError if the state
        does not fit; the session is then closed.
        """
        if state:
            raise StateError(f"{type(self).__name__} keeps no state, but some was saved", "use the back end that saved it")

    async def replaced(self) -> None:
        """Called when a newer incarnation of the VM has a new session; this one ends."""
        await self.close()

    async def close(self) -> None:
        """Called when the VM has ended. Data that must outlive it must be durable before this returns."""
