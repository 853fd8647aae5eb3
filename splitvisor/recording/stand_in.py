# SPDX-License-Identifier: GPL-2.0-or-later
"""Stands in for a back end: answers a live guest with what the back end answered when it was recorded.

Answers are found by vCPU, call, arguments and operands, equal calls in their recorded order. So a guest may make other calls more
or less often than it did, as one does whose timer ticks elsewhere; a call that was made more often than recorded gets its last
answer again. One that was never made, the recording has no answer for: there the guest leaves the recording.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import grpc

from splitvisor.declarations.calls import (
    Call,
    DescribedBuffers,
    Hypercall,
    Key,
    Keys,
    Mirrored,
    Operand,
    Posted,
    Result,
    RtasCall,
)
from splitvisor.declarations.guest_memory import LOGICAL_ADDRESS_MASK, GuestAddressError
from splitvisor.declarations.session import Session, Vm
from splitvisor.papr.codes import H
from splitvisor.recording import RecordingError
from splitvisor.recording.conversation import Event, Introduction, Recording, Seed, Step
from splitvisor.recording.dma import refuse_dma
from splitvisor.recording.stand_in_console import Output, StandInConsoles
from splitvisor.recording.text import asked_text, call_text, terminal_bytes
from splitvisor.recording.trees import RecordedTrees
from splitvisor.rpc import console_pb2_grpc, device_tree_pb2_grpc, trap_pb2_grpc
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.server import TrapServicer

MAX_BYTES = 512 << 20
"""Of the recorded calls that are kept to answer from."""
MAX_LEAVES = 50
"""Calls outside of the recording that are told of; all are counted."""
OUTPUT_CALL = "H_PUT_TERM_CHAR"
TREE_OWNER = "hcall_service"


class _Key(NamedTuple):
    vcpu: int
    call: str
    arguments: tuple[int, ...]
    returns: int
    operands: tuple[bytes, ...]


@dataclass
class _Answer:
    """A recorded call, and what came unasked after it."""

    step: Step
    events: list[pb.AttachResponse] = field(default_factory=list)
    given: bool = False


@dataclass
class Account:
    """What became of a guest."""

    answered: int = 0
    repeated: int = 0
    """Calls that got an answer for the second time or more."""
    left: int = 0
    """Calls that the recording has no answer for."""

    def __str__(self) -> str:
        where = f"left the recording {self.left} times" if self.left else "stayed in the recording"
        return f"{self.answered} calls answered, {self.repeated} of them again; the guest {where}"


class Script:
    """One link's part of a recording, to answer from.

    Args:
        recording: read to its end here.
        backend: the link.
        say: gets lines for people: where the guest leaves the recording, and how a VM ended.

    Raises RecordingError.
    """

    def __init__(self, recording: Recording, backend: str, say: Callable[[str], None]) -> None:
        self.backend, self._say = backend, say
        self.account = Account()
        self.introduction = Introduction(0, pb.Hello(), pb.Offer())
        self.trees = RecordedTrees(self.leave)
        self._answers: dict[_Key, deque[_Answer]] = {}
        self.first_events: list[pb.AttachResponse] = []
        """What came before the first call."""
        latest, kept = self.first_events, 0
        for _, item in recording.items(backend):
            match item:
                case Introduction():
                    refuse_dma(recording, backend, item)
                    self.introduction = item
                case Seed():
                    kept += item.tree.ByteSize()
                    self.trees.expect(item.tree)
                case Event():
                    kept += item.message.ByteSize()
                    latest.append(item.message)
                case Step() if item.request.HasField("trap"):
                    kept += item.request.ByteSize() + item.response.ByteSize()
                    answer = _Answer(item)
                    latest = answer.events
                    self._answers.setdefault(self._recorded_key(item.request.trap), deque()).append(answer)
            if kept > MAX_BYTES:
                raise RecordingError(f"{recording.name} has more than {MAX_BYTES >> 20} MiB of calls to {backend}: too large")
        if not self.introduction.hello.vm:
            raise RecordingError(f"{recording.name} has no connection to {backend}", "record the machine anew")

    def _recorded_key(self, trap: pb.Trap) -> _Key:
        operands = tuple(block.data for block in trap.operands)
        return _Key(trap.vcpu, self._name(trap.route), tuple(trap.arguments), trap.returns, operands)

    def _name(self, route: int) -> str:
        return self.introduction.offer.routes[route].name

    def find(self, route: pb.Route, call: Call, operands: Sequence[bytes]) -> _Answer | None:
        """Return the answer to a call; None when the guest has left the recording."""
        key = _Key(call.vcpu, route.name, tuple(call.arguments), call.returns, tuple(operands))
        answers = self._answers.get(key)
        if answers is None:
            return None
        self.account.answered += 1
        if len(answers) > 1:
            return answers.popleft()
        answer = answers[0]
        self.account.repeated += answer.given
        answers[0] = _Answer(answer.step, given=True)  # For the next time, without what came after it once.
        return answer

    def leave(self, reason: str) -> None:
        """Tell that the guest does what it did not do when it was recorded."""
        self.account.left += 1
        if self.account.left <= MAX_LEAVES:
            self._say(f"the guest leaves the recording: {reason}")

    def ended(self, vm: str) -> None:
        """Tell how a VM's guest did."""
        self._say(f"VM {vm}: {self.account}")


class StandInSession(Session):
    """One VM that is answered from a script."""

    def __init__(self, vm: Vm, script: Script, output: Output) -> None:
        super().__init__(vm)
        self._script, self._output = script, output
        offer = script.introduction.offer
        self._inventory = pb.Inventory(nodes=offer.nodes, devices=vm.devices)
        self._keys = {
            number: pb.RouteKeys(keys=route.keys, posted_keys=route.posted.key_values)
            for number, route in enumerate(offer.routes)
        }
        hello = script.introduction.hello
        if (vm.vcpus, vm.memory.size) != (hello.vcpus, hello.ram_bytes):
            recorded = f"{hello.vcpus} vCPUs and {hello.ram_bytes >> 20} MiB"
            raise ValueError(f"the recording is of a machine with {recorded}; give this one as much")

    def nodes(self) -> Sequence[pb.TreeNode]:
        """See Session."""
        return self._inventory.nodes

    def inventory(self) -> Sequence[pb.DeviceSpec]:
        """See Session."""
        return self._inventory.devices

    def keys(self, number: int) -> Keys:
        """Return the keys of one of the recorded routes, as they are by now."""
        return [range(each.first, each.last + 1) for each in self._keys[number].keys]

    def posted_keys(self, number: int) -> Sequence[int]:
        """Return the same of those that may be posted."""
        return self._keys[number].posted_keys

    async def reset(self) -> None:
        """See Session."""
        events, self._script.first_events = self._script.first_events, []
        self._happen(events)

    async def close(self) -> None:
        """See Session."""
        self._output.end(self.vm.name)
        self._script.ended(self.vm.name)

    async def answer(self, route: pb.Route, call: Call) -> Result:
        """Answer a call as it was answered."""
        trap = pb.Trap(vcpu=call.vcpu, arguments=call.arguments)
        if route.name == OUTPUT_CALL:
            self._output.write(self.vm.name, terminal_bytes(trap))
        operands = await _operands(self.vm, route, call)
        answer = self._script.find(route, call, operands)
        if answer is None:
            if route.HasField("posted"):  # Nothing but its effect was recorded: the guest had its answer before.
                return Result(H.SUCCESS)
            trap.operands.extend(pb.MemoryBlock(data=data) for data in operands)
            self._script.leave(f"it did not make this call: {call_text(route, trap)}")
            failure = route.unavailable_result or H.HARDWARE
            return Result(failure, returns=(failure,))
        await self._ask(answer.step)
        reply = answer.step.response.reply
        for block in reply.writes:
            await self.vm.memory.write(block.address, block.data)
        call.effects.extend(reply.effects)
        self._happen(answer.events)
        return Result(reply.result, reply.outputs, reply.returns)

    async def _ask(self, step: Step) -> None:
        """Do to the machine what the back end did before it answered."""
        for asked, recorded in step.asked:
            if asked.HasField("memory_write"):
                await self.vm.memory.write(asked.memory_write.block.address, asked.memory_write.block.data)
            elif asked.HasField("invoke"):
                result, outputs = await self.vm.invoke(asked.invoke.token, *asked.invoke.arguments)
                expected = recorded.invoke_result if recorded is not None else pb.InvokeResult()
                if (result, list(outputs)) != (expected.result, list(expected.outputs)):
                    self._script.leave(f"another answer to what {self._script.backend} asked: {asked_text(asked)}")

    def _happen(self, events: Sequence[pb.AttachResponse]) -> None:
        for event in events:
            if event.HasField("interrupt"):
                self.vm.interrupt(event.interrupt.source)
            elif event.HasField("action"):
                self.vm.machine_action(event.action.kind, event.action.reason)
            elif event.HasField("inventory"):
                self._inventory = event.inventory
                self._keys.update((each.route, each) for each in event.inventory.keys if each.route in self._keys)
                self.vm.inventory_changed()


async def _operands(vm: Vm, route: pb.Route, call: Call) -> Sequence[bytes]:
    """The memory that the route asks for, as it was sent when it was recorded; what is not in RAM is left out."""
    blocks: dict[int, bytes] = {}
    for number, spec in enumerate(route.operands):
        address = vm.memory.size
        if spec.HasField("word"):
            word = blocks.get(spec.word.operand, b"")[4 * spec.word.index :][:4]
            if len(word) == 4:
                address = int.from_bytes(word, "big")
        elif spec.argument < len(call.arguments):
            address = call.arguments[spec.argument] & LOGICAL_ADDRESS_MASK
        size = min(spec.size, vm.memory.size - address)
        if size > 0:
            blocks[number] = await _block(vm, address, size, string=spec.string)
    return list(blocks.values())


async def _block(vm: Vm, address: int, size: int, *, string: bool) -> bytes:
    if string:
        with suppress(ValueError, GuestAddressError):
            return await vm.memory.read_string(address, size) + b"\0"
    return await vm.memory.read(address, size)


def _declare(script: Script) -> Sequence[Hypercall | RtasCall]:
    """The recorded offer's routes as a session declares them."""
    mirrors = {mirror.name: mirror.contents for mirror in script.introduction.offer.mirrors}
    return [_declaration(number, route, mirrors.get(route.name)) for number, route in enumerate(script.introduction.offer.routes)]


def _buffers(described: pb.DescribedBuffers) -> DescribedBuffers:
    return DescribedBuffers(
        described.first, described.count, described.min_each, described.alignment, described.min_bytes, described.max_bytes
    )


def _declaration(number: int, route: pb.Route, mirror: bytes | None) -> Hypercall | RtasCall:
    def handler(session: StandInSession, call: Call) -> Awaitable[Result]:
        return session.answer(route, call)

    operands = tuple(
        Operand(spec.size, word=(spec.word.operand, spec.word.index), string=spec.string)
        if spec.HasField("word")
        else Operand(spec.size, argument=spec.argument, string=spec.string)
        for spec in route.operands
    )
    key = _key(number, route.selector) if route.HasField("selector") else None
    if route.kind == pb.CALL_KIND_RTAS:
        mirrored = None if mirror is None else Mirrored(lambda _session: mirror)
        return RtasCall(route.name, handler, "", None, None, operands=operands, unavailable_result=route.unavailable_result,
                        mirrored=mirrored, key=key)  # fmt: skip
    policy = route.posted
    posted = Posted(
        policy.credit_bytes, policy.key_argument, lambda session: session.posted_keys(number), policy.size_argument,
        policy.max_size, policy.call_bytes, policy.at_once, policy.without_credit == pb.WITHOUT_CREDIT_WAIT,
        _buffers(route.buffers) if route.HasField("buffers") else None,
    )  # fmt: skip
    return Hypercall(
        route.token, handler, route.arguments, "", operands=operands, posted=posted if route.HasField("posted") else None,
        unavailable_result=route.unavailable_result, name=route.name, key=key,
    )  # fmt: skip


def _key(number: int, selector: pb.Selector) -> Key:
    place: dict[str, Any] = {"argument": selector.argument}
    match selector.WhichOneof("key"):
        case "argument_pair":
            place = {"argument_pair": selector.argument_pair}
        case "word":
            place = {"word": (selector.word.operand, selector.word.index)}
    return Key(lambda session: session.keys(number), no_owner_result=selector.no_owner_result, **place)


class StandIn:
    """A stand-in as a service (see splitvisor.service.names)."""

    Options: type[Any] = type(None)

    def __init__(self, script: Script) -> None:
        self._script = script
        routes = script.introduction.offer.routes
        self._has_console = any(route.name == OUTPUT_CALL for route in routes)
        self._has_trees = script.introduction.offer.backend == TREE_OWNER
        self.SERVICES = (
            "splitvisor.trap.v1.TrapService",
            *(("splitvisor.control.v1.ConsoleService",) if self._has_console else ()),
            *(("splitvisor.control.v1.DeviceTreeService",) if self._has_trees else ()),
        )

    async def start(self, server: grpc.aio.Server, _options: object) -> Callable[[], Awaitable[None]]:
        """Add the servicers. Returns what stops them."""
        output = Output()
        kind = type("RecordedSession", (StandInSession,), {"calls": _declare(self._script)})
        # The name of the program, by which cpu_service knows who has the trees; its link may have had another.
        traps = TrapServicer(self._script.introduction.offer.backend, lambda vm: kind(vm, self._script, output))
        trap_pb2_grpc.add_TrapServiceServicer_to_server(traps, server)
        if self._has_console:
            console_pb2_grpc.add_ConsoleServiceServicer_to_server(StandInConsoles(output), server)
        if self._has_trees:
            device_tree_pb2_grpc.add_DeviceTreeServiceServicer_to_server(self._script.trees, server)
        return traps.close
