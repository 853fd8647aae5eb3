# SPDX-License-Identifier: GPL-2.0-or-later
"""The calls of a back end under test, with its answers."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace

from splitvisor.backend import Call, Hypercall, Result, RtasCall, Session, Vm
from splitvisor.declarations.guest_memory import GuestAddressError
from splitvisor.testing.loop import DEADLINE_S


@dataclass(frozen=True)
class Trap:
    """A call that a handler has finished."""

    backend: str
    vm: str
    vcpu: int
    name: str
    """The name in its declaration: "H_ECHO", "nvram-fetch"."""
    arguments: tuple[int, ...]
    result: int
    """r3 of a hypercall, the status of an RTAS call."""
    outputs: tuple[int, ...] = ()
    """r4 and up; for an RTAS call, the return words after the status."""
    error: Exception | None = None
    """The handler's exception; result is the guest's result for it."""


class Traps:
    """The calls of a machine to the back ends that this process serves, in the order in which they were finished."""

    def __init__(self) -> None:
        self._traps: list[Trap] = []
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._traps)

    def __iter__(self) -> Iterator[Trap]:
        return iter(list(self._traps))

    def __getitem__(self, index: int) -> Trap:
        return self._traps[index]

    def named(self, name: str) -> list[Trap]:
        """Return the traps of one call."""
        return [trap for trap in self if trap.name == name]

    def wait_for(self, name: str, count: int = 1, timeout: float = DEADLINE_S) -> list[Trap]:
        """Wait until a call, for instance a posted call, was made count times; return its traps.

        Raises AssertionError with the calls made instead after timeout seconds.
        """
        with self._changed:
            if self._changed.wait_for(lambda: len(self.named(name)) >= count, timeout):
                return self.named(name)
        called = ", ".join(trap.name for trap in self) or "nothing"
        raise AssertionError(f"{name} was called {len(self.named(name))} times, not {count}; called: {called}")

    def clear(self) -> None:
        """Remove all traps."""
        with self._changed:
            self._traps.clear()

    def add(self, trap: Trap) -> None:
        """Add a trap; from any thread."""
        with self._changed:
            self._traps.append(trap)
            self._changed.notify_all()


def recording(backend: str, factory: Callable[[Vm], Session], traps: Traps) -> Callable[[Vm], Session]:
    """Return a factory of the same sessions whose finished calls are added to traps."""

    def make(vm: Vm) -> Session:
        session = factory(vm)
        # For this session only; its class keeps the table that it declares.
        session.__dict__["calls"] = tuple(_recorded(backend, vm, call, traps) for call in session.calls)
        return session

    return make


def _recorded(backend: str, vm: Vm, declared: Hypercall | RtasCall, traps: Traps) -> Hypercall | RtasCall:
    def note(call: Call, answer: Result | int, error: Exception | None = None) -> Result | int:
        result, outputs = _words(declared, answer)
        arguments = tuple(call.arguments)
        traps.add(Trap(backend, vm.name, call.vcpu, declared.call_name, arguments, result, outputs, error))
        return answer

    async def finish(call: Call, answer: Awaitable[Result | int]) -> Result | int:
        try:
            return note(call, await answer)
        except Exception as error:
            note(call, declared.failure(parameter=isinstance(error, GuestAddressError)), error)
            raise

    def handler(session: Session, call: Call) -> Result | int | Awaitable[Result | int]:
        try:
            answer = declared.handler(session, call)
        except Exception as error:
            note(call, declared.failure(parameter=isinstance(error, GuestAddressError)), error)
            raise
        return note(call, answer) if isinstance(answer, Result | int) else finish(call, answer)

    return replace(declared, handler=handler)


def _words(declared: Hypercall | RtasCall, answer: Result | int) -> tuple[int, tuple[int, ...]]:
    if not isinstance(answer, Result):
        return int(answer), ()
    if isinstance(declared, RtasCall):
        status, *words = answer.returns or (0,)
        return int(status), tuple(words)
    return int(answer.result), tuple(answer.outputs)
