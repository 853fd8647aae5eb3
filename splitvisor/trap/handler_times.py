# SPDX-License-Identifier: GPL-2.0-or-later
"""What a back end can tell of its handlers: an observer sees each call begin and end, and the one here takes times."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol

from splitvisor.declarations.calls import Hypercall, Result, RtasCall
from splitvisor.observe.call_times import CallTimes, ResultClass, hypercall_class, rtas_class
from splitvisor.observe.metrics import HANDLER, MAX_VMS, Sample
from splitvisor.rpc import trap_pb2 as pb

Ended = Callable[[ResultClass], None]
"""Told once what came of a call."""


class HandlerObserver(Protocol):
    """Sees the calls that handlers work on. Without observers a trap costs one test more than without this module."""

    def begin(self, vm: str, declared: Hypercall | RtasCall, trap: pb.Trap) -> Ended:
        """A handler begins."""


class HandlerTimes:
    """Takes the time of every handler."""

    def __init__(self) -> None:
        self._vms: dict[str, CallTimes] = {}

    def begin(self, vm: str, declared: Hypercall | RtasCall, trap: pb.Trap) -> Ended:
        """See HandlerObserver."""
        times = self._vms.get(vm) or self._add(vm)
        name, began = declared.call_name, time.perf_counter()
        return lambda result: times.observe(name, result, time.perf_counter() - began)

    def _add(self, vm: str) -> CallTimes:
        if len(self._vms) >= MAX_VMS:  # The name that is known longest goes; its VM has most likely ended.
            del self._vms[next(iter(self._vms))]
        return self._vms.setdefault(vm, CallTimes())

    def samples(self) -> Iterator[Sample]:
        """Yield the times so far."""
        for vm, times in self._vms.items():
            for timed in times.all():
                yield Sample(HANDLER, (vm, timed.call, timed.result.name.lower()), timed.latency)


def answer_class(declared: Hypercall | RtasCall, answer: Result | int) -> ResultClass:
    """Return what a handler's answer means."""
    if isinstance(declared, RtasCall):
        words = (answer,) if isinstance(answer, int) else answer.returns
        return rtas_class(words[0]) if words else ResultClass.SUCCESS
    return hypercall_class(answer if isinstance(answer, int) else answer.result)
