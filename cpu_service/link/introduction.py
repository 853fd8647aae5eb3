# SPDX-License-Identifier: GPL-2.0-or-later
"""How a connection begins: who the VM is, how far its traps have come, and the state that a restored session starts with."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from splitvisor.declarations.state import parts
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.features import hello_features


class Introduction:
    """What a link says first on each connection. Not safe for threads.

    Args:
        hello: the VM, without positions; its beginning counts with a state only: MOVED, or else RESTORED.
        state: what the back end's session starts with; None: as at power-on.
        open_queues: returns the queues of the back end's devices that the guest has registered.
    """

    def __init__(self, hello: pb.Hello, state: bytes | None, open_queues: Callable[[], Iterable[pb.OpenQueue]]) -> None:
        self._hello, self._open_queues = hello, open_queues
        self._restore = state
        """Sent until the back end has it."""
        self.stands_still = state is not None
        """The machine does not run yet."""
        self.paused = False
        """The machine is paused."""
        self._takes_back = False
        """The machine runs already: a restored session goes on at once."""

    def requests(
        self, devices: Iterable[pb.DeviceSpec], positions: Iterable[pb.VcpuPosition], socket_path: str
    ) -> list[pb.AttachRequest]:
        """Return the messages.

        Args:
            devices: of the back end.
            positions: how far traps have come.
            socket_path: where the connection may move to; empty: nowhere.
        """
        hello = pb.Hello()
        hello.CopyFrom(self._hello)
        hello.ClearField("devices")
        hello.devices.extend(devices)
        hello.positions.extend(positions)
        hello.open_queues.extend(self._open_queues())
        hello.socket_path = socket_path
        hello.beginning = self._beginning()
        hello.paused = self.paused
        hello.features.extend(hello_features(hello.beginning))
        requests = [pb.AttachRequest(hello=hello)]
        if self._restore is not None:
            states = [pb.RestoreState(data=data, last=last) for data, last in parts(self._restore)]
            requests += [pb.AttachRequest(restore_state=state) for state in states]
        if self._takes_back:
            requests.append(pb.AttachRequest(resumed=pb.Resumed()))
        return requests

    def _beginning(self) -> pb.Beginning:
        if self._restore is not None:
            return pb.BEGINNING_MOVED if self._hello.beginning == pb.BEGINNING_MOVED else pb.BEGINNING_RESTORED
        return pb.BEGINNING_STANDING_STILL if self.stands_still else pb.BEGINNING_RUNNING

    def taken(self) -> None:
        """The back end has it: the next connection finds the session that there is."""
        self._restore = None
        self._takes_back = False

    def take_back(self, state: bytes, incarnation: int) -> None:
        """Let the session start with a state as a newer life of this VM, which runs."""
        self._hello.incarnation = incarnation
        self._hello.beginning = pb.BEGINNING_MOVED
        self._restore = state
        self._takes_back = True
