# SPDX-License-Identifier: GPL-2.0-or-later
"""From the engine's hook to a call's owner and back: privilege, dispatch, operands, posting, replies, effects, RTAS.

Everything here runs on the vCPU thread, inside the hook, while the guest's hypercall is under way.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

from cpu_service.engine.engine import MSR_PR
from cpu_service.engine.ram import GuestRam
from cpu_service.hypercalls.declarations import ANOTHERS, ANOTHERS_RTAS, HypercallHandler, LocalRtas
from cpu_service.link.backend_link import BackendLink
from cpu_service.routing.posting import FindWindow, Posted, Posting
from cpu_service.routing.registry import LOCAL, RegisteredRtas, Registry
from cpu_service.routing.remote_call import RemoteCall, SharedCall
from cpu_service.vcpus.scheduler import VcpuScheduler
from cpu_service.vcpus.vcpu import Vcpu
from splitvisor.declarations.guest_memory import LOGICAL_ADDRESS_MASK, GuestAddressError
from splitvisor.observe.call_times import CallTimes, ResultClass, hypercall_class, rtas_class
from splitvisor.papr.codes import H, RtasStatus
from splitvisor.papr.hcall import Hcall, hcall_name
from splitvisor.papr.rtas import DISPLAY_CHARACTER_EARLY_TOKEN, TOKENS
from splitvisor.rpc import trap_pb2 as pb

if TYPE_CHECKING:
    from splitvisor.trap.tracing import RemoteSpans

CALL_TIMEOUT_S = 30.0
"""How long a guest waits for a back end, reconnects included, before it is told that the hardware failed."""
CREDIT_TIMEOUT_S = 10.0
"""How long an effect waits for the credit of a posted route."""
CREDIT_RETRY_S = 0.02
"""After which such an effect is tried again even if nothing was acknowledged: H_BUSY can be the owner's own answer."""
RECENT_TRAPS = 16
UNOWNED = 0
"""Stands for all hypercalls without an owner in `counts`, of which a guest could make 2**64."""
NOBODY = "nobody"
"""In place of an owner: the key of a shared call was nobody's."""
MAX_UNOWNED_LOGGED = 16
MAX_RTAS_WORDS = 64
"""Argument and return words of an RTAS call, together; PAPR's longest has 17."""
MIRRORED_ARGUMENTS, MIRRORED_RETURNS = 3, 2
"""Of a call that is answered from a mirrored array: offset, address, length; status, length."""

_MASK = 0xFFFF_FFFF_FFFF_FFFF

log = structlog.get_logger()


class RouterEvents(Protocol):
    """What replies can do to the machine."""

    def interrupt(self, source: int) -> None:
        """Pulse an interrupt source."""

    def action(self, action: pb.MachineAction) -> None:
        """Change the machine's state."""

    def memory_written(self, address: int, length: int) -> None:
        """RAM was written by the back end: code translated from there is stale."""


@dataclass(frozen=True)
class RecentTrap:
    """One of the last calls, for the crash report."""

    vcpu: int
    token: int
    argument: int
    """r4: for H_RTAS, the address of the parameter block."""

    def __str__(self) -> str:
        return f"vCPU {self.vcpu} {hcall_name(self.token)} r4={self.argument:#x}"


class TrapRouter:
    """Carries hypercalls to their owners.

    Args:
        registry: the owners, complete.
        scheduler: the vCPUs.
        ram: guest RAM.
        events: what replies can do to the machine.
        window: returns the DMA window of one of a back end's devices, by its unit address; None: there is none.
        native_calls: how often calls were made that did not come here, by token.
    """

    def __init__(
        self,
        registry: Registry,
        scheduler: VcpuScheduler,
        ram: GuestRam,
        events: RouterEvents,
        window: FindWindow,
        native_calls: Callable[[], Mapping[int, int]] = dict,
    ) -> None:
        self._registry, self._scheduler, self._ram, self._events = registry, scheduler, ram, events
        self._window, self._native_calls = window, native_calls
        self._local = {
            token: self._shared(token, call.handler) if call.shared else call.handler for token, call in registry.local.items()
        }
        self.counts: Counter[int] = Counter()
        """Hypercalls that came here so far by token."""
        self.rtas_counts: Counter[int] = Counter()
        """RTAS calls so far by token."""
        self.times = CallTimes()
        """How long vCPUs waited for back ends."""
        self.spans: RemoteSpans | None = None
        """Records each call that goes to a back end."""
        self._waiting_for: list[BackendLink] = []
        """Back ends that work on the present call, each for the one before."""
        self._recent: deque[tuple[int, int, int]] = deque(maxlen=RECENT_TRAPS)
        self.dispatch: Callable[[], None] = self._make_dispatch()
        """Carries out the loaded vCPU's hypercall; the engine's hook."""

    def _make_dispatch(self) -> Callable[[], None]:
        """As a closure: this is on the way of every hypercall, 80,000 times while Linux boots."""
        scheduler, counts, recent = self._scheduler, self.counts, self._recent
        local = self._local
        gpr, msr = scheduler.loaded.gpr, scheduler.loaded.msr

        def dispatch() -> None:
            vcpu = scheduler.current
            token = gpr[3]
            recent.append((vcpu.index, token, gpr[4]))
            if msr.value & MSR_PR:
                gpr[3] = H.PRIVILEGE & _MASK
                return
            handler = local.get(token)
            if handler is not None:
                counts[token] += 1
                gpr[3] = handler(vcpu) & _MASK
            else:
                gpr[3] = self._far_hypercall(token) & _MASK
            if scheduler.attention:
                scheduler.attend()

        return dispatch

    def _shared(self, token: int, handler: HypercallHandler) -> HypercallHandler:
        """A local call that others may own, too: whose it is its handler says."""

        def ask(vcpu: Vcpu) -> int:
            result = handler(vcpu)
            return self.forward(token) if result == ANOTHERS else result

        return ask

    def recent(self) -> Sequence[RecentTrap]:
        """The last calls, the newest last."""
        return [RecentTrap(*trap) for trap in self._recent]

    def _far_hypercall(self, token: int) -> int:
        """A hypercall that is not local: RTAS, a back end's, or nobody's."""
        if token == Hcall.H_RTAS:
            self.counts[token] += 1
            return self._rtas(self._scheduler.current.gpr[4])
        call = self._registry.remote.get(token)
        if call is None:
            self.counts[UNOWNED] += 1
            if self.counts[UNOWNED] <= MAX_UNOWNED_LOGGED:
                log.info("guest made a hypercall that nobody owns", vcpu=self._scheduler.current.index, call=hcall_name(token))
            return H.FUNCTION
        self.counts[token] += 1
        return self._carry(call)

    def forward(self, token: int) -> int:
        """Carry a shared hypercall of the loaded vCPU to the back end that owns it. Returns r3."""
        call = self._registry.remote.get(token)
        return H.PARAMETER if call is None else self._carry(call)

    def _carry(self, call: RemoteCall | SharedCall) -> int:
        gpr = self._scheduler.current.gpr
        result, outputs = self._remote(call, gpr[4 : 4 + call.arguments])
        for number, value in enumerate(outputs[:9]):
            gpr[4 + number] = value
        return result

    # Back ends.

    def _remote(self, call: RemoteCall | SharedCall, arguments: Sequence[int]) -> tuple[int, Sequence[int]]:
        """Make a hypercall of one back end, or of those that its arguments select. Returns r3, and r4 and up."""
        if isinstance(call, RemoteCall):
            return self._owned(call, arguments)
        answer: tuple[int, Sequence[int]] = (call.no_owner, ())
        owners = call.select(self._ram, arguments)
        for owner in owners:
            owner.made += 1
            answer = self._owned(owner, arguments)
            if answer[0] != H.SUCCESS:
                break
        call.without_owner += not owners
        return answer

    def _owned(self, call: RemoteCall, arguments: Sequence[int]) -> tuple[int, Sequence[int]]:
        if call.link in self._waiting_for:  # It waits for us: neither would ever answer.
            return H.RESOURCE, ()
        if call.posting is not None:
            posted = call.posting.posted(arguments, call.posted_keys, self._ram, self._window)
            if posted is not None and (result := self._post(call, call.posting, arguments, posted)) is not None:
                return result, ()
        reply = self._ask(call, arguments, 0)
        return (call.unavailable, ()) if reply is None else (reply.result, reply.outputs)

    def _post(self, call: RemoteCall, posting: Posting, arguments: Sequence[int], posted: Posted) -> int | None:
        """Make a posted call. Returns r3; None: its owner gives no credit, and it is to be made the synchronous way."""
        operands = call.operands(self._ram, arguments)
        vcpu = self._scheduler.current.index
        span = None if self.spans is None else self.spans.begin(call.name, call.owner, vcpu, posted=True)
        traceparent = "" if span is None else span.traceparent
        result: int | None = H.SUCCESS
        size, buffers = posted
        if not call.link.post(call.index, vcpu, arguments, operands, size, traceparent, buffers=buffers, at_once=posting.at_once):
            result = H.BUSY
            if posting.waits_for_credit:
                result = None if call.link.attached else call.unavailable
        if span is not None:
            span.end(hypercall_class(H.BUSY if result is None else result))
        return result

    def _ask(self, call: RemoteCall, arguments: Sequence[int], returns: int) -> pb.Reply | None:
        """Make a synchronous call and apply what its reply carries beside registers."""
        operands = () if call.link.offer.ram_mapped else call.operands(self._ram, arguments)
        vcpu = self._scheduler.current.index
        span = None if self.spans is None else self.spans.begin(call.name, call.owner, vcpu)
        traceparent = "" if span is None else span.traceparent
        began = time.perf_counter()
        self._waiting_for.append(call.link)
        reply = call.link.trap(call.index, vcpu, arguments, returns, operands, CALL_TIMEOUT_S, self._invoke, traceparent)
        self._waiting_for.pop()
        result = _reply_class(call, reply)
        self.times.observe(call.name, result, time.perf_counter() - began, call.owner)
        if reply is not None:
            self._apply(reply, call)
        if span is not None:
            span.end(result)
        return reply

    def _apply(self, reply: pb.Reply, call: RemoteCall) -> None:
        for block in reply.writes:
            try:
                self._ram.write(block.address, block.data)
            except GuestAddressError as error:
                log.error("back end wrote outside RAM", backend=call.owner, call=call.name, reason=str(error))
        for dirty in reply.dirty:
            self._events.memory_written(dirty.address, dirty.length)
        for effect in reply.effects:
            match effect.WhichOneof("effect"):
                case "interrupt":
                    self._events.interrupt(effect.interrupt.source)
                case "action":
                    self._events.action(effect.action)
                case "invoke":
                    self._invoke_posted(effect.invoke)
                case "mirror_write":
                    if not call.link.offer.mirror_write(effect.mirror_write):
                        log.error("back end changed a mirror behind its end", backend=call.owner, call=call.name)

    def _invoke(self, invoke: pb.Invoke) -> pb.InvokeResult:
        """A hypercall that a back end makes for the waiting vCPU: H_RTAS, or one of a route that another back end owns."""
        if invoke.token == Hcall.H_RTAS and invoke.arguments:
            return pb.InvokeResult(id=invoke.id, result=self._rtas(invoke.arguments[0]))
        known = self._registry.remote.get(invoke.token)
        if known is None or len(invoke.arguments) < known.arguments:
            return pb.InvokeResult(id=invoke.id, result=H.FUNCTION)
        result, outputs = self._remote(known, invoke.arguments[: known.arguments])
        return pb.InvokeResult(id=invoke.id, result=result, outputs=outputs)

    def _invoke_posted(self, invoke: pb.Invoke) -> None:
        """The same without an answer; waits for credit, so that nothing is lost while the owner is slow."""
        deadline = time.monotonic() + CREDIT_TIMEOUT_S
        while self._invoke(invoke).result == H.BUSY:
            if time.monotonic() > deadline:
                log.warning("a call was dropped: its owner gives no credit", call=hcall_name(invoke.token))
                return
            owner = self._registry.hypercall_owner(invoke.token, self._ram, invoke.arguments)
            if owner is not None:
                owner.link.wait_for_credit(CREDIT_RETRY_S)

    # RTAS.

    def _rtas(self, block: int) -> int:
        """H_RTAS: the address of {token, nargs, nret, args, rets}, big-endian words (PAPR 7.2.7)."""
        block &= LOGICAL_ADDRESS_MASK
        try:
            token, nargs, nret = _words(self._ram.read(block, 12))
            if nargs + nret > MAX_RTAS_WORDS:
                return H.PARAMETER
            arguments = _words(self._ram.read(block + 12, 4 * nargs))
            room = block + 12 + 4 * nargs
            self._ram.read(room, 4 * nret)
        except GuestAddressError:
            return H.PARAMETER
        if token == DISPLAY_CHARACTER_EARLY_TOKEN:
            token = TOKENS["display-character"]
        known = self._registry.rtas.get(token)
        returns = None if known is None else self._rtas_returns(known, arguments, nret)
        answered = returns if returns is not None else (RtasStatus.PARAMETER_ERROR,)
        words = [word & 0xFFFF_FFFF for word in answered[:nret]]
        words += [0] * (nret - len(words))
        if answered:
            self._ram.write(room, b"".join(word.to_bytes(4, "big") for word in words))
        return H.SUCCESS if returns is not None else H.PARAMETER

    def _rtas_returns(self, known: RegisteredRtas, arguments: Sequence[int], nret: int) -> Sequence[int] | None:
        """The return words; empty: the caller's are left alone; None: there is no such call."""
        self.rtas_counts[known.token] += 1
        owner = known.owner
        if known.first is not None:
            answered = self._local_rtas(known.first, arguments, nret)
            if answered is not ANOTHERS_RTAS:
                return answered
        if isinstance(owner, LocalRtas):
            answered = self._local_rtas(owner, arguments, nret)
            return (RtasStatus.PARAMETER_ERROR,) if answered is ANOTHERS_RTAS else answered
        if isinstance(owner, RemoteCall):
            return self._owned_rtas(owner, arguments, nret)
        returns: Sequence[int] | None = (owner.no_owner,)
        owners = owner.select(self._ram, arguments)
        for each in owners:
            each.made += 1
            returns = self._owned_rtas(each, arguments, nret)
            if returns is None or (returns and returns[0] != RtasStatus.SUCCESS):
                break
        owner.without_owner += not owners
        return returns

    def _local_rtas(self, call: LocalRtas, arguments: Sequence[int], nret: int) -> Sequence[int]:
        """The return words of a call of our own."""
        if len(arguments) != call.arguments or nret < call.returns:
            return (RtasStatus.PARAMETER_ERROR,)
        return call.handler(self._scheduler.current, arguments, nret)

    def _owned_rtas(self, owner: RemoteCall, arguments: Sequence[int], nret: int) -> Sequence[int] | None:
        if owner.name in owner.link.offer.mirrors and self._mirrored(owner, arguments, nret):
            return (RtasStatus.SUCCESS, arguments[2])
        reply = self._ask(owner, arguments, nret)
        if reply is None:
            return (owner.unavailable,)
        return None if reply.unknown_call else reply.returns

    def _mirrored(self, owner: RemoteCall, arguments: Sequence[int], nret: int) -> bool:
        """Make a call that only reads a mirrored array; False when the owner has to answer it."""
        if len(arguments) != MIRRORED_ARGUMENTS or nret < MIRRORED_RETURNS:
            return False
        offset, address, length = arguments
        contents = owner.link.offer.mirrors[owner.name]
        if offset + length > len(contents) or address + length > self._ram.size:
            return False
        self._ram.write(address, bytes(contents[offset : offset + length]))
        return True

    def call_counts(self) -> list[CallCount]:
        """How often each call was made, by owner, the most frequent first."""
        rows: list[CallCount] = []
        for token, count in (self.counts + Counter(self._native_calls())).items():
            owner = self._registry.remote.get(token)
            name = "without an owner" if token == UNOWNED else hcall_name(token) if owner is None else owner.name
            rows += self._rows(name, owner, count)
        for token, count in self.rtas_counts.copy().items():
            known = self._registry.rtas[token]
            rows += self._rows(known.name, known.owner, count)
        return sorted(rows, key=lambda row: -row.count)

    def _rows(self, name: str, owner: LocalRtas | RemoteCall | SharedCall | None, count: int) -> Iterator[CallCount]:
        if isinstance(owner, SharedCall):
            for call in owner.calls:
                if call.made:
                    yield CallCount(name, call.owner, call.made, self.times.seconds(name, call.owner))
            if owner.without_owner:
                yield CallCount(name, NOBODY, owner.without_owner, 0.0)
            here = count - owner.without_owner - sum(call.made for call in owner.calls)
            if here > 0:
                yield CallCount(name, LOCAL, here, 0.0)
        elif isinstance(owner, RemoteCall):
            yield CallCount(name, owner.owner, count, self.times.seconds(name, owner.owner))
        else:
            yield CallCount(name, LOCAL, count, 0.0)


@dataclass(frozen=True)
class CallCount:
    """How often a call was made, and the seconds that vCPUs waited for it."""

    name: str
    owner: str
    """A back end's name, LOCAL, or NOBODY."""
    count: int
    seconds: float


def _reply_class(call: RemoteCall, reply: pb.Reply | None) -> ResultClass:
    if reply is None:
        return ResultClass.UNAVAILABLE
    if not call.is_rtas:
        return hypercall_class(reply.result)
    if reply.unknown_call:
        return ResultClass.ERROR
    return rtas_class(reply.returns[0]) if reply.returns else ResultClass.SUCCESS


def _words(data: bytes) -> tuple[int, ...]:
    return tuple(int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data), 4))
