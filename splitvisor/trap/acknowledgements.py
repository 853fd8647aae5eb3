# SPDX-License-Identifier: GPL-2.0-or-later
"""When a back end acknowledges posted traps: soon when it has nothing else to do, and many at a time when it has.

An acknowledgement only returns credit, of which a guest has plenty, but is a message like any other: with many guests that print
it would be every fourth message that a service and its peers handle.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import islice

from splitvisor.declarations.calls import Hypercall, RtasCall
from splitvisor.rpc import trap_pb2 as pb

IDLE_S = 0.005
"""With no request for so long, of any VM, everything is acknowledged."""
LONGEST_S = 0.03
"""After which an acknowledgement waits only for those of other VMs."""
VMS_AT_ONCE = 4
"""Of how many at a time: what many guests send meanwhile does not wait for all of it."""
CREDIT_PART = 4
"""Of the credit, one part in so many is acknowledged at once when it is used up."""


class VmAcknowledgements:
    """The acknowledgements of one VM that were not sent yet.

    Args:
        schedule: of all VMs of the service.
        calls: what the session declares.
        send: takes each acknowledgement, in order.
    """

    def __init__(
        self, schedule: AcknowledgementSchedule, calls: Iterable[Hypercall | RtasCall], send: Callable[[pb.AttachResponse], None]
    ) -> None:
        posted = [call.posted for call in calls if isinstance(call, Hypercall) and call.posted is not None]
        # No trap takes more credit than its call's largest size.
        self._most_traps = min((each.credit_bytes // (CREDIT_PART * max(1, each.max_size)) for each in posted), default=0)
        self._most_bytes = min((each.credit_bytes // CREDIT_PART for each in posted if each.buffers is not None), default=0)
        self._schedule, self._send = schedule, send
        self._sequences: dict[int, int] = {}
        self._traps = self._bytes = 0
        self.since = 0.0
        """When the first of them was done."""

    def add(self, done: Mapping[int, int], traps: int, buffer_bytes: int) -> None:
        """So many more traps are done.

        Args:
            done: by vCPU, the sequence of the last of them.
            traps: how many.
            buffer_bytes: of those with buffers.
        """
        if not self._traps:
            self.since = time.monotonic()
        self._sequences.update(done)
        self._traps += traps
        self._bytes += buffer_bytes
        if self._traps > self._most_traps or self._bytes > self._most_bytes:
            self.send()
        else:
            self._schedule.add(self)

    def send(self) -> None:
        """Acknowledge the last trap of each vCPU, and all before it, now."""
        sequences, self._sequences = self._sequences, {}
        self.clear()
        for vcpu, sequence in sequences.items():
            self._send(pb.AttachResponse(acknowledge=pb.Acknowledge(vcpu=vcpu, sequence=sequence)))

    def clear(self) -> None:
        """Leave out what was not sent: it was said in another way, or there is nobody to send it to."""
        self._sequences = {}
        self._traps = self._bytes = 0
        self._schedule.remove(self)


class AcknowledgementSchedule:
    """When the VMs of a service acknowledge: looks, while any has something to send, whether there is anything else to do."""

    def __init__(self) -> None:
        self.requests = 0
        """So far, of every kind and VM."""
        self._seen = 0
        self._waiting: dict[VmAcknowledgements, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, vm: VmAcknowledgements) -> None:
        """Have a VM send its acknowledgements in a while."""
        self._waiting[vm] = None
        if self._timer is None:
            self._seen = self.requests
            self._timer = asyncio.get_running_loop().call_later(IDLE_S, self._look)

    def remove(self, vm: VmAcknowledgements) -> None:
        """A VM has nothing to send any more."""
        self._waiting.pop(vm, None)

    def _look(self) -> None:
        idle, self._seen = self.requests == self._seen, self.requests
        oldest = time.monotonic() - LONGEST_S
        due = (each for each in self._waiting if idle or each.since <= oldest)  # The oldest first.
        for vm in list(islice(due, VMS_AT_ONCE)):
            vm.send()
        self._timer = asyncio.get_running_loop().call_later(IDLE_S, self._look) if self._waiting else None
