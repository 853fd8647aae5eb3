# SPDX-License-Identifier: GPL-2.0-or-later
"""Lets watchers see the guest's calls as they return.

While nobody watches, the engine calls the router's dispatch and nothing of this exists on the way. The first watcher puts a
closure around it, the last one takes that away. The vCPU thread never waits: it appends to a bounded buffer or counts a miss.
"""

from __future__ import annotations

import fnmatch
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from cpu_service.engine.engine import Engine
from cpu_service.engine.ram import GuestRam
from cpu_service.routing.registry import LOCAL, RegisteredRtas, Registry
from cpu_service.routing.remote_call import RemoteCall, SharedCall
from cpu_service.vcpus.scheduler import VcpuScheduler
from splitvisor.declarations.guest_memory import LOGICAL_ADDRESS_MASK, GuestAddressError
from splitvisor.errors.problem import ProblemError
from splitvisor.net.times import seconds
from splitvisor.papr.arguments import HYPERCALLS, string_arguments
from splitvisor.papr.hcall import Hcall, hcall_name
from splitvisor.rpc import machine_pb2 as pb

MAX_WATCHERS = 8
BUFFERED = 8192
"""Calls that wait for one watcher."""
MAX_PATTERNS, PATTERN_BYTES = 32, 64
MAX_WORDS = 64
"""Argument and return words of a parameter block that are looked at."""
STRING_BYTES = 128
UNKNOWN_ARGUMENTS = 4
"""Registers that are shown of a hypercall whose arguments are not known."""
_NO_RETURN = 0xFFFF_FFFF
"""-1: what a client service returns when it cannot do what was asked."""


class WatchError(ValueError):
    """A watcher's request makes no sense; the message says why."""


class TooManyWatchersError(ProblemError):
    """There are MAX_WATCHERS already."""


class Seen(NamedTuple):
    """A call that has returned, as the vCPU thread leaves it for watchers."""

    time_ns: int
    duration_ns: int
    vcpu: int
    kind: pb.WatchedKind
    name: str
    owner: str
    posted: bool
    arguments: Sequence[int]
    strings: dict[int, bytes]
    result: int
    returns: Sequence[int]
    failed: bool

    def message(self) -> pb.WatchedTrap:
        """The wire form."""
        return pb.WatchedTrap(**self._asdict())


class _Block(NamedTuple):
    """A parameter block of RTAS or the client interface: where it is, and what it held when the call was made."""

    kind: pb.WatchedKind
    name: str
    owner: str
    arguments: Sequence[int]
    strings: dict[int, bytes]
    returns_at: int
    returns: int


class Watcher:
    """What one client wants to see, and the calls that wait for it.

    Args:
        request: what to see.
        wake: called from the vCPU thread when the first call arrives after take().

    Raises WatchError.
    """

    def __init__(self, request: pb.WatchTrapsRequest, wake: Callable[[], None]) -> None:
        if len(request.calls) > MAX_PATTERNS or any(len(pattern.encode()) > PATTERN_BYTES for pattern in request.calls):
            raise WatchError(f"give at most {MAX_PATTERNS} patterns of at most {PATTERN_BYTES} bytes")
        self.local = request.local
        self._owners, self._vcpus = frozenset(request.owners), frozenset(request.vcpus)
        self._failed, self._slower_ns = request.failed, seconds(request.slower_than) * 1e9
        self._name = _matcher(request.calls)
        self._wake, self._woken = wake, False
        self._seen: deque[Seen] = deque()
        self._missed_told = 0
        self.missed = 0
        """Calls that found no room, so far."""

    def offer(self, seen: Seen) -> None:
        """Take a call if it is wanted; on the vCPU thread."""
        if (
            (self._failed and not seen.failed)
            or seen.duration_ns <= self._slower_ns
            or (seen.owner == LOCAL and not self.local)
            or (self._owners and seen.owner not in self._owners)
            or (self._vcpus and seen.vcpu not in self._vcpus)
            or not self._name(seen.name)
        ):
            return
        if len(self._seen) >= BUFFERED:
            self.missed += 1
            return
        self._seen.append(seen)
        if not self._woken:
            self._woken = True
            self._wake()

    def take(self, limit: int) -> tuple[list[Seen], int]:
        """Return the next calls, and how many were missed since the last time."""
        missed = self.missed - self._missed_told
        self._missed_told += missed
        calls = [self._seen.popleft() for _ in range(min(limit, len(self._seen)))]
        if not self._seen:
            self._woken = False
            if self._seen:  # One arrived in between, and did not wake.
                self._woken = True
                self._wake()
        return calls, missed


class TrapTrace:
    """The watchers of one machine.

    Args:
        engine: its on_hypercall is what is watched.
        registry: who owns what.
        scheduler: whose call it is.
        ram: where parameter blocks are.
    """

    def __init__(self, engine: Engine, registry: Registry, scheduler: VcpuScheduler, ram: GuestRam) -> None:
        self._engine, self._registry, self._scheduler, self._ram = engine, registry, scheduler, ram
        self._lock = threading.Lock()
        self._watchers: tuple[Watcher, ...] = ()
        self._wants_local = False
        self._unwatched: Callable[[], None] | None = None
        self._missed_before = 0

    @property
    def watchers(self) -> int:
        """How many there are."""
        return len(self._watchers)

    @property
    def missed(self) -> int:
        """Calls that watchers missed so far, all together."""
        return self._missed_before + sum(watcher.missed for watcher in self._watchers)

    def add(self, watcher: Watcher) -> None:
        """Let a watcher see calls from now on; from any thread. Raises TooManyWatchersError."""
        with self._lock:
            if len(self._watchers) >= MAX_WATCHERS:
                raise TooManyWatchersError(f"{MAX_WATCHERS} watchers are here already", "end one of them")
            self._set((*self._watchers, watcher))
            if self._unwatched is None:
                self._unwatched = self._engine.on_hypercall
                self._engine.on_hypercall = self._watched(self._unwatched)

    def remove(self, watcher: Watcher) -> None:
        """Let a watcher go; from any thread. The last one leaves the way of a call as it was."""
        with self._lock:
            if watcher not in self._watchers:
                return
            self._missed_before += watcher.missed
            self._set(tuple(other for other in self._watchers if other is not watcher))
            if not self._watchers and self._unwatched is not None:
                self._engine.on_hypercall, self._unwatched = self._unwatched, None

    def _set(self, watchers: tuple[Watcher, ...]) -> None:
        self._watchers = watchers
        self._wants_local = any(watcher.local for watcher in watchers)
        self._engine.answer_page_table_calls(native=not self._wants_local)

    def _watched(self, dispatch: Callable[[], None]) -> Callable[[], None]:
        """What stands in the place of dispatch; on the vCPU thread."""
        gpr, local, scheduler = self._scheduler.loaded.gpr, self._registry.local, self._scheduler

        def watched() -> None:
            token = gpr[3]
            if token in local and not self._wants_local:
                dispatch()
                return
            vcpu = scheduler.current.index
            block = self._block(token, gpr[4])
            registers = gpr[4 : 4 + _count(token, self._registry.remote.get(token))]
            remote = self._registry.hypercall_owner(token, self._ram, registers)
            arguments = registers if block is None else block.arguments
            posted_before = remote.link.posted.traps if remote is not None else 0
            now, began = time.time_ns(), time.perf_counter_ns()
            dispatch()
            took = time.perf_counter_ns() - began
            result = gpr[3] - (gpr[3] >> 63 << 64)
            if block is None:
                owner = remote.owner if remote is not None else LOCAL if token in local or token == Hcall.H_RTAS else ""
                posted = remote is not None and remote.link.posted.traps != posted_before
                kind, name = pb.WATCHED_KIND_HYPERCALL, hcall_name(token) if remote is None else remote.name
                seen = Seen(now, took, vcpu, kind, name, owner, posted, arguments, {}, result, (), result < 0)
            else:
                returns = self._words(block.returns_at, block.returns)
                failed = result < 0 or _is_failure(block.kind, returns)
                seen = Seen(
                    now, took, vcpu, block.kind, block.name, block.owner, False, arguments, block.strings, result, returns, failed
                )
            for watcher in self._watchers:
                watcher.offer(seen)

        return watched

    def _block(self, token: int, address: int) -> _Block | None:
        """The parameter block of H_RTAS or H_OF_CLIENT; None for other calls, and for a block that is none."""
        if token not in (Hcall.H_RTAS, Hcall.H_OF_CLIENT):
            return None
        address &= LOGICAL_ADDRESS_MASK
        header = self._words(address, 3)
        if not header or header[1] + header[2] > MAX_WORDS:
            return None
        which, count, returns = header
        arguments = self._words(address + 12, count)
        returns_at = address + 12 + 4 * count
        if token == Hcall.H_RTAS:
            known = self._registry.rtas.get(which)
            owner = "" if known is None else self._rtas_owner(known, arguments)
            name = f"rtas {which:#x}" if known is None else known.name
            return _Block(pb.WATCHED_KIND_RTAS, name, owner, arguments, {}, returns_at, returns)
        remote = self._registry.hypercall_owner(token, self._ram, (address,))
        name = self._string(which).decode("ascii", "backslashreplace")
        strings = {number: self._string(arguments[number]) for number in string_arguments(name) if number < len(arguments)}
        owner = "" if remote is None else remote.owner
        return _Block(pb.WATCHED_KIND_CLIENT_SERVICE, name, owner, arguments, strings, returns_at, returns)

    def _rtas_owner(self, known: RegisteredRtas, arguments: Sequence[int]) -> str:
        owner = known.owner
        if isinstance(owner, SharedCall):
            return ", ".join(each.owner for each in owner.select(self._ram, arguments))
        return owner.owner if isinstance(owner, RemoteCall) else LOCAL

    def _words(self, address: int, count: int) -> Sequence[int]:
        try:
            data = self._ram.read(address, 4 * count)
        except GuestAddressError:
            return ()
        return [int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data), 4)]

    def _string(self, address: int) -> bytes:
        if address >= self._ram.size:
            return b""
        return self._ram.map[address : address + STRING_BYTES].partition(b"\0")[0]


def _count(token: int, remote: RemoteCall | SharedCall | None) -> int:
    """How many registers a hypercall takes."""
    known = HYPERCALLS.get(token)
    if known is not None:
        return len(known)
    return remote.arguments if remote is not None else UNKNOWN_ARGUMENTS


def _is_failure(kind: pb.WatchedKind, returns: Sequence[int]) -> bool:
    if not returns:
        return False
    return returns[0] >> 31 == 1 if kind == pb.WATCHED_KIND_RTAS else returns[0] == _NO_RETURN


def _matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a name matches any pattern; names repeat, and few are many."""
    if not patterns:
        return lambda _name: True
    matches = re.compile("|".join(fnmatch.translate(pattern.lower()) for pattern in patterns)).match
    return lru_cache(1024)(lambda name: matches(name.lower()) is not None)
