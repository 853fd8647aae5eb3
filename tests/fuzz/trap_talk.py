# SPDX-License-Identifier: GPL-2.0-or-later
"""A cpu_service that keeps to the contract until it has the back end's ear, and then says what no cpu_service would.

A conversation opens with a hello that is taken. Then come calls with arguments from the edges, posted batches, resets, saves,
answers to memory requests and to calls of other owners that are short, wrong or not asked for, and connections that end half way.
Now and then a call that must be answered shows that everything before it was taken: messages are counted then, not before.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from splitvisor.rpc import trap_pb2 as pb
from splitvisor.rpc import trap_pb2_grpc
from tests.fuzz.fuzzed_services import end_of
from tests.fuzz.mutator import EDGES, Mutator

RAM_BYTES = 1 << 20
VCPUS = 2
ANSWER_S = 20.0
"""How long a back end may take to answer, with everything that it asks of us meanwhile."""
BURST = 12
"""Messages between two calls that must be answered, at most."""
NAMES = (
    "finddevice", "getprop", "getproplen", "nextprop", "setprop", "child", "peer", "parent", "package-to-path",
    "instance-to-path", "open", "close", "write", "seek", "claim", "release", "call-method", "interpret", "milliseconds",
    "canon", "test", "quiesce", "instance-to-package", "/", "/chosen", "/vdevice/vty@71000000", "stdout", "reg", "name", "",
    "a" * 300, *["read"] * 8,
)  # fmt: skip
"""What a string of a guest may be."""

_DEVICES = [pb.DeviceSpec(kind=kind) for kind in ("vty", "nvram", "vty")]
_ids = itertools.count(1)


class StuckError(Exception):
    """A back end does not answer what it must answer."""


class TrapTalk:
    """One VM's life at one back end.

    Args:
        channel: to it.
        mutator: chooses everything.
        vm: the VM's name.
        state: what its session starts with; None: as at power-on.
    """

    def __init__(self, channel: grpc.aio.Channel, mutator: Mutator, vm: str, state: bytes | None = None) -> None:
        self._stub: Any = trap_pb2_grpc.TrapServiceStub(channel)
        self._mutator, self._source, self._state = mutator, mutator.source, state
        self._hello = pb.Hello(
            vm=vm,
            beginning=pb.BEGINNING_RUNNING,
            incarnation=next(_ids),
            vcpus=VCPUS,
            ram_bytes=RAM_BYTES,
            devices=_DEVICES,
            slots=pb.SlotRange(count=64),
        )
        self._sequence = 0
        self._outgoing: asyncio.Queue[pb.AttachRequest | None] = asyncio.Queue()
        self.offer = pb.Offer()
        self.sent = 0
        self.handled: Counter[str] = Counter()
        """Messages that the back end has taken behind its offer, by kind."""
        self.asked: Counter[str] = Counter()
        """What the back end has asked for and told, by kind."""
        self.saved = b""
        """The last state that came whole."""
        self._parts = b""
        self._unproven: Counter[str] = Counter()

    async def run(self, bursts: int) -> str:
        """Talk, over two connections when the first is cut; return how it ended. Raises StuckError."""
        status = await self._connection(bursts)
        if self._source.random() < 0.3:
            self._hello.positions.add(vcpu=0, sequence=self._source.choice((0, self._sequence, max(0, self._sequence - 2))))
            self._state = None
            status = await self._connection(bursts)
        return status

    async def _connection(self, bursts: int) -> str:
        self._outgoing = asyncio.Queue()
        self._unproven = Counter()
        self._hello.beginning = pb.BEGINNING_RUNNING if self._state is None else pb.BEGINNING_RESTORED
        self._put(pb.AttachRequest(hello=self._hello))
        if self._state is not None:
            half = self._source.randrange(len(self._state) + 1)
            for part, last in ((self._state[:half], False), (self._state[half:], True)):
                self._put(pb.AttachRequest(restore_state=pb.RestoreState(data=part, last=last)))
        call = self._stub.Attach(self._requests(self._outgoing))
        responses = aiter(call)
        try:
            async with asyncio.timeout(ANSWER_S):
                self.offer = (await anext(responses)).offer
            self.handled["hello, restored" if self._state is not None else "hello"] += 1
            self._unproven.clear()
            if self._source.random() < 0.8:  # As every machine begins.
                self._put(pb.AttachRequest(reset=pb.Reset(count=1)))
            for _ in range(bursts):
                self._say_things()
                await self._prove(responses)
            if self._source.random() < 0.3:
                self._put(pb.AttachRequest(detach=pb.Detach(reason="enough")))
                async for _ in responses:
                    pass
        except TimeoutError:
            raise StuckError(f"{self.offer.backend}: no answer within {ANSWER_S:g} s, after {dict(self._unproven)}") from None
        except StopAsyncIteration:
            return "OK"
        except grpc.aio.AioRpcError as error:
            return end_of(error)
        finally:
            self._outgoing.put_nowait(None)
            call.cancel()
        return "OK"

    async def _requests(self, outgoing: asyncio.Queue[pb.AttachRequest | None]) -> AsyncIterator[pb.AttachRequest]:
        while (request := await outgoing.get()) is not None:
            yield request

    def _put(self, request: pb.AttachRequest) -> None:
        self.sent += 1
        self._unproven[request.WhichOneof("message") or "nothing"] += 1
        self._outgoing.put_nowait(request)

    # What this side says.

    def _say_things(self) -> None:
        kinds: Sequence[tuple[float, Callable[[], pb.AttachRequest]]] = (
            (0.55, lambda: pb.AttachRequest(trap=self._trap())),
            (0.20, self._batch),
            (0.05, lambda: pb.AttachRequest(reset=pb.Reset(count=self._source.randrange(1 << 32)))),
            (0.05, lambda: pb.AttachRequest(save_state=pb.SaveState(id=self._number()))),
            (0.05, lambda: pb.AttachRequest(resumed=pb.Resumed())),
            (0.04, lambda: pb.AttachRequest(memory_result=self._filled(pb.MemoryResult))),
            (0.04, lambda: pb.AttachRequest(invoke_result=self._filled(pb.InvokeResult))),
            (0.01, self._again),
            (0.01, self._wild),
        )
        weights = [weight for weight, _ in kinds]
        for _ in range(self._source.randint(1, BURST)):
            [(_, make)] = self._source.choices(kinds, weights)
            self._put(make())

    def _filled(self, kind: Any) -> Any:
        return self._mutator.filled(kind.DESCRIPTOR)

    def _number(self) -> int:
        return self._source.choice(EDGES) & 0xFFFF_FFFF

    def _argument(self) -> int:
        """A register: an address in RAM, an edge, or anything."""
        source = self._source
        match source.randrange(4):
            case 0:
                return source.randrange(0, RAM_BYTES, 8) | source.choice((0, 0, 0xC << 60))
            case 1:
                return source.getrandbits(64)
            case _:
                return source.choice(EDGES)

    def _trap(self) -> pb.Trap:
        source = self._source
        self._sequence += 1
        number = source.randrange(len(self.offer.routes))
        route = self.offer.routes[number]
        is_rtas = route.kind == pb.CALL_KIND_RTAS
        count = source.randrange(8) if is_rtas else route.arguments
        arguments = [self._argument() & (0xFFFF_FFFF if is_rtas else (1 << 64) - 1) for _ in range(count)]
        if route.operands and arguments and source.random() < 0.9:  # Else nothing comes along.
            arguments[0] = source.randrange(0, RAM_BYTES, 8)
        trap = pb.Trap(
            vcpu=0, sequence=self._sequence, route=number, arguments=arguments,
            returns=source.choice((0, 1, 2, 8, self._number())) if is_rtas else 0,
        )  # fmt: skip
        for index, spec in enumerate(route.operands):
            block = self._operand(spec, trap)
            if block is None or source.random() < 0.05:
                break
            trap.operands.append(block)
            assert len(trap.operands) == index + 1
        return trap

    def _operand(self, spec: pb.OperandSpec, trap: pb.Trap) -> pb.MemoryBlock | None:
        """Memory as a guest might have it where the call points to."""
        source = self._source
        if spec.WhichOneof("base") == "argument":
            if spec.argument >= len(trap.arguments):
                return None
            address = trap.arguments[spec.argument]
        elif spec.word.operand < len(trap.operands) and 4 * spec.word.index + 4 <= len(trap.operands[spec.word.operand].data):
            [address] = struct.unpack_from(">I", trap.operands[spec.word.operand].data, 4 * spec.word.index)
        else:
            return None
        if spec.string:
            data = source.choice(NAMES).encode()[: spec.size - 1] + b"\0"
        else:
            # As a parameter block: a name, two counts, then handles, which are small, and addresses.
            words = [source.choice((1, 1, 2, source.randrange(0, RAM_BYTES, 4), self._number())) for _ in range(spec.size // 4)]
            words[1:3] = (source.choice((1, 2, 3, 3, 4)), source.choice((0, 1, 1, 2)))
            data = struct.pack(f">{len(words)}I", *words)
        return pb.MemoryBlock(address=address, data=data if source.random() < 0.9 else data[: source.randrange(16)])

    def _batch(self) -> pb.AttachRequest:
        return pb.AttachRequest(posted=pb.PostedBatch(traps=[self._trap() for _ in range(self._source.randrange(1, 6))]))

    def _again(self) -> pb.AttachRequest:
        """A call that came already, or one behind a gap that says that it is none."""
        trap = self._trap()
        if self._source.random() < 0.5:
            trap.sequence = self._source.randrange(1, self._sequence + 1)
            self._sequence -= 1
        else:
            trap.skipped, self._sequence = 5, self._sequence + 5
            trap.sequence = self._sequence
        return pb.AttachRequest(trap=trap)

    def _wild(self) -> pb.AttachRequest:
        """What ends a stream, most of the time."""
        trap = self._trap()
        match self._source.randrange(4):
            case 0:
                trap.route = len(self.offer.routes) + self._source.randrange(3)
            case 1:
                trap.vcpu = VCPUS
            case 2:
                trap.sequence += 7
            case _:
                return pb.AttachRequest(restore_state=pb.RestoreState(data=b"now?", last=True))
        return pb.AttachRequest(trap=trap)

    # What the back end answers and asks.

    async def _prove(self, responses: AsyncIterator[pb.AttachResponse]) -> None:
        """Make a call and serve the back end until it has answered: what was sent before has been taken then."""
        trap = self._trap()
        self._put(pb.AttachRequest(trap=trap))
        async with asyncio.timeout(ANSWER_S):
            async for response in responses:
                kind = response.WhichOneof("message") or "nothing"
                self.asked[kind] += 1
                if response.reply.sequence == trap.sequence:
                    self.handled += self._unproven
                    self._unproven.clear()
                    return
                self._serve(kind, response)
        raise StopAsyncIteration

    def _serve(self, kind: str, response: pb.AttachResponse) -> None:
        match kind:
            case "memory_read":
                self._answer(pb.AttachRequest(memory_result=self._memory(response.memory_read)))
            case "memory_write":
                ok = self._source.random() < 0.9
                self._answer(pb.AttachRequest(memory_result=pb.MemoryResult(id=response.memory_write.id, ok=ok)))
            case "invoke":
                outputs = [self._argument() for _ in range(self._source.randrange(6))]
                result = self._source.choice((0, 0, *EDGES)) & (1 << 63) - 1
                answer = pb.InvokeResult(id=response.invoke.id, result=result, outputs=outputs)
                self._answer(pb.AttachRequest(invoke_result=answer))
            case "saved_state":
                self._parts += response.saved_state.data
                if response.saved_state.last:
                    self.saved, self._parts = self._parts, b""

    def _answer(self, request: pb.AttachRequest) -> None:
        """Answer a request, sometimes twice."""
        for _ in range(self._source.choice((1, 1, 1, 2))):
            self._put(request)

    def _memory(self, request: pb.MemoryRead) -> pb.MemoryResult:
        source = self._source
        length = request.range.length
        if request.range.address + length > RAM_BYTES or source.random() < 0.1:
            return pb.MemoryResult(id=request.id)
        data = (source.choice(NAMES).encode() + b"\0" if source.random() < 0.5 else b"") + source.randbytes(length)
        if source.random() < 0.1:
            length = source.choice((0, 1, length // 2, length + 1))
        return pb.MemoryResult(id=request.id, ok=True, data=data[:length])
