# SPDX-License-Identifier: GPL-2.0-or-later
"""Drives a back end from a recording, without a CPU, and compares what it does with what was recorded.

Requests are sent in their order, each after the one before was answered, so that a replay is the same every time. Compared is
what a guest or the machine can see: the offer, replies, memory writes, calls of other owners, and what comes unasked. How a back
end reads memory is its own business; reads are only answered.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from splitvisor.limits import MESSAGE_BYTES
from splitvisor.net.channels import explain, open_aio_channel
from splitvisor.papr.codes import H
from splitvisor.recording.comparison import (
    Difference,
    Outcome,
    TooManyError,
    Unasked,
    first_difference,
    line,
    messages_text,
    route_key,
    unequal,
    without_id,
    without_keys,
)
from splitvisor.recording.conversation import Event, Introduction, Recording, Seed, Step
from splitvisor.recording.memory import CallMemory
from splitvisor.recording.rules import TREE_PROPERTIES, masked_reply, rules_for
from splitvisor.recording.text import asked_text, call_text, keys_text, reply_text, typed_bytes
from splitvisor.recording.trees import RecordedTrees
from splitvisor.recording.typist import Typist, TypistError
from splitvisor.rpc import device_tree_pb2 as dt
from splitvisor.rpc import device_tree_pb2_grpc, trap_pb2_grpc
from splitvisor.rpc import recording_pb2 as rpb
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.tree import fdt
from splitvisor.tree.diff import differences

ANSWER_S = 15.0
"""How long a back end may take for one answer."""
MAX_REPORTED = 100
"""Differences that are described; all are counted."""
TREE_OWNER = "hcall_service"
NVRAM_FETCH = "nvram-fetch"
INPUT_CALL = "H_GET_TERM_CHAR"

_OPTIONS = (("grpc.max_send_message_length", MESSAGE_BYTES), ("grpc.max_receive_message_length", MESSAGE_BYTES))


class ReplayEndedError(Exception):
    """The back end cannot be replayed any further; the message says why."""


async def replay(
    recording: Recording, backend: str, address: str, trees: RecordedTrees | None, report: Callable[[Difference], None]
) -> Outcome:
    """Replay one link's part of a recording.

    Args:
        recording: read to its end.
        backend: the link.
        address: the back end's gRPC target.
        trees: gets the trees that of_client_service reads; None: it has no need of any.
        report: gets the first MAX_REPORTED differences.

    Raises RecordingError for what is wrong with the recording; what is wrong with the back end is in the outcome.
    """
    outcome = Outcome()
    with tempfile.TemporaryDirectory(prefix="splitvisor-replay-") as directory:
        async with open_aio_channel(address, _OPTIONS) as channel:
            replayer = _Replayer(channel, outcome, report, Path(directory), trees)
            try:
                for _, item in recording.items(backend):
                    await replayer.take(item)
                await replayer.finish()
            except grpc.aio.AioRpcError as error:
                outcome.failure = f"{backend} at {address}: {explain(error)}"
            except (ReplayEndedError, TooManyError, TypistError) as error:
                outcome.failure = f"{backend} at {address}: {error}"
            except TimeoutError:
                outcome.failure = f"{backend} at {address}: no answer within {ANSWER_S:.0f} s"
            finally:
                await replayer.close()
    conversation = next(each for each in recording.conversations if each.name == backend)
    outcome.unanswered = conversation.unanswered
    return outcome


class _Replayer:
    """A replay under way."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        outcome: Outcome,
        report: Callable[[Difference], None],
        directory: Path,
        trees: RecordedTrees | None,
    ) -> None:
        self._channel, self._outcome, self._report = channel, outcome, report
        self._directory, self._trees = directory, trees
        # Of its own: no machine that is running must lose its back end to a replay.
        self._incarnation = time.time_ns()
        self._vm = f"replay-{self._incarnation:x}"
        self._typist = Typist(channel, self._vm)
        self._typed = False
        self._call: Any = None
        self._detached = False
        self._offer, self._live_offer = pb.Offer(), pb.Offer()
        self._routes: dict[int, int] = {}
        """Place of each recorded route in the live offer."""
        self._number, self._time_ns, self._text = 0, 0, ""
        self._recorded, self._live = Unasked(), Unasked()

    async def take(self, item: object) -> None:
        """Replay the next item."""
        match item:
            case Introduction():
                await self._introduce(item)
            case Seed():
                await self._seed(item.tree)
            case Event():
                self._recorded.add(self._translate_keys(item.message))
            case Step():
                await self._step(item)

    async def finish(self) -> None:
        """Detach, and compare what came unasked."""
        if self._call is None:
            raise ReplayEndedError("the recording has no connection to it")
        await self._detach()
        while (response := await self._receive()) is not None:
            self._live.add(response)
        self._number, self._text = 0, "outside of calls"
        self._compare_interrupts()
        if self._recorded.messages != self._live.messages:
            self._differ("messages", messages_text(self._recorded.messages), messages_text(self._live.messages))

    async def close(self) -> None:
        """Let go of the back end."""
        await self._typist.close()
        if self._call is None:
            return
        if not self._detached:  # It would keep what it has of this VM.
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError):
                await self._detach()
        self._call.cancel()

    async def _detach(self) -> None:
        self._detached = True
        await self._send(pb.AttachRequest(detach=pb.Detach(reason="the replay is over")))
        async with asyncio.timeout(ANSWER_S):
            await self._call.done_writing()

    # The parts of a recording.

    async def _introduce(self, item: Introduction) -> None:
        hello = pb.Hello()
        hello.CopyFrom(item.hello)
        hello.vm, hello.incarnation = self._vm, self._incarnation
        hello.ClearField("ram_path")
        hello.ClearField("positions")
        for number, device in enumerate(hello.devices):
            if "path" in device.options:
                device.options["path"] = str(self._file(number, item.offer))
        stub: Any = trap_pb2_grpc.TrapServiceStub(self._channel)
        self._call = stub.Attach()
        await self._send(pb.AttachRequest(hello=hello))
        response = await self._receive()
        if response is None or not response.HasField("offer"):
            raise ReplayEndedError("it did not send an offer first")
        self._offer, self._live_offer = item.offer, response.offer
        self._text = "offer"
        places = {route_key(route): place for place, route in enumerate(self._live_offer.routes)}
        for place, route in enumerate(self._offer.routes):
            live = places.pop(route_key(route), None)
            if live is None:
                self._differ("calls", f"it owns {route.name}", "it does not")
                continue
            self._routes[place] = live
            now = self._live_offer.routes[live]
            if list(route.keys) != list(now.keys):
                self._differ(f"{route.name}: keys", keys_text(route.keys), keys_text(now.keys))
            if without_keys(route) != without_keys(now):
                self._differ(route.name, line(route), line(now))
        for _, name in places:
            self._differ("calls", f"it does not own {name}", "it does")
        for what in ("nodes", "mirrors"):
            for recorded, now in unequal(getattr(self._offer, what), getattr(self._live_offer, what)):
                self._differ(what, line(recorded), line(now))

    def _file(self, number: int, offer: pb.Offer) -> Path:
        """A file for a device that has its contents in one, with what was in it when the recording began."""
        path = self._directory / f"device-{number}"  # Nothing of a recording gets into a path.
        contents = next((mirror.contents for mirror in offer.mirrors if mirror.name == NVRAM_FETCH), None)
        if contents is not None:
            path.write_bytes(contents)
        return path

    async def _seed(self, item: rpb.SeedTree) -> None:
        if self._trees is not None:
            self._trees.put(self._vm, dt.TREE_ORIGIN_SEED, item.response.blob)
        if self._live_offer.backend != TREE_OWNER:
            return
        request = dt.BuildTreeRequest()
        request.CopyFrom(item.request)
        request.vm = self._vm
        stub: Any = device_tree_pb2_grpc.DeviceTreeServiceStub(self._channel)
        live: dt.BuildTreeResponse = await stub.BuildTree(request, timeout=ANSWER_S)
        self._number, self._text = 0, "device tree"
        try:
            recorded, now = fdt.read(item.response.blob), fdt.read(live.blob)
        except fdt.FdtError as error:
            raise ReplayEndedError(f"a device tree is broken: {error}") from error
        for change in differences(recorded, now):
            if (change.path, change.name) in TREE_PROPERTIES:
                self._outcome.left_out[f"{change.path.rstrip('/')}/{change.name} of the device tree"] += 1
            else:
                values = ("nothing" if value is None else value.hex() or "there" for value in (change.before, change.after))
                self._differ(f"{change.path} {change.name or ''}".rstrip(), *values)

    async def _step(self, step: Step) -> None:
        self._time_ns = step.time_ns
        if self._call is None:
            raise ReplayEndedError("the recording has calls before a connection")
        live = Step(step.time_ns, self._translate(step.request))
        names = [self._offer.routes[trap.route].name for trap in step.traps]
        self._number += 1
        self._outcome.calls += len(step.traps)
        self._text = f"reset {step.request.reset.count}"
        if step.traps:
            self._text = call_text(self._offer.routes[step.traps[0].route], step.traps[0])
            if not live.traps:
                return  # It has no such call; that was reported.
        if step.request.HasField("trap") and names == [INPUT_CALL] and step.request.trap.arguments:
            await self._type(step)
        await self._send(live.request)
        await self._answer(step, live)
        if step.request.HasField("trap"):
            self._compare_replies(names[0], step, live)

    def _translate_keys(self, message: pb.AttachResponse) -> pb.AttachResponse:
        """The message with the live offer's places of routes."""
        if not message.inventory.keys:
            return message
        live = pb.AttachResponse()
        live.CopyFrom(message)
        for keys in live.inventory.keys:
            keys.route = self._routes.get(keys.route, keys.route)
        return live

    def _translate(self, request: pb.AttachRequest) -> pb.AttachRequest:
        """The request with the live offer's places of routes, without calls that it does not have."""
        live = pb.AttachRequest()
        live.CopyFrom(request)
        if live.HasField("trap"):
            if live.trap.route not in self._routes:
                return pb.AttachRequest()
            live.trap.route = self._routes[live.trap.route]
        elif live.HasField("posted"):
            traps = [trap for trap in live.posted.traps if trap.route in self._routes]
            for trap in traps:
                trap.route = self._routes[trap.route]
            live.posted.CopyFrom(pb.PostedBatch(traps=traps))
        return live

    async def _type(self, step: Step) -> None:
        typed = typed_bytes(step.response.reply)
        if typed:
            self._typed = True
            await self._typist.type(step.request.trap.arguments[0] & 0xFFFF_FFFF, typed)

    # The live back end.

    async def _answer(self, step: Step, live: Step) -> None:
        """Answer what the back end asks for until it has answered the request, and compare what it asks for."""
        memory = CallMemory(step)
        expected = iter([(asked, answer) for asked, answer in step.asked if not asked.HasField("memory_read")])
        while True:
            response = await self._receive()
            if response is None:
                raise ReplayEndedError(f"it ended the connection in {self._text}")
            match response.WhichOneof("message"):
                case "memory_read":
                    await self._send(self._memory_result(response.memory_read, memory))
                case "memory_write" | "invoke":
                    await self._send(self._asked(response, expected, memory))
                case "reply" | "acknowledge" | "reset_done":
                    if live.take(response):
                        live.response = response
                        break
                case _:
                    self._live.add(response)
        for asked, _ in expected:
            self._differ("what it asks for", asked_text(asked), "nothing more")

    def _memory_result(self, read: pb.MemoryRead, memory: CallMemory) -> pb.AttachRequest:
        result = pb.MemoryResult(id=read.id)
        data = memory.read(read.range.address, read.range.length) if read.range.length <= MESSAGE_BYTES else None
        if data is not None:
            result.data, result.ok = data, True
        elif (read.range.address, read.range.length) not in memory.refused:
            place = f"{read.range.address:#x}+{read.range.length}"
            self._differ("memory read", "the recording does not have these bytes", f"it reads {place}")
        return pb.AttachRequest(memory_result=result)

    def _asked(
        self,
        live: pb.AttachResponse,
        expected: Iterator[tuple[pb.AttachResponse, pb.AttachRequest | None]],
        memory: CallMemory,
    ) -> pb.AttachRequest:
        recorded, answer = next(expected, (pb.AttachResponse(), None))
        if without_id(recorded) != without_id(live):
            self._differ("what it asks for", asked_text(recorded), asked_text(live))
        if live.HasField("memory_write"):
            memory.write(live.memory_write.block)
            ok = answer.memory_result.ok if answer is not None and answer.HasField("memory_result") else True
            return pb.AttachRequest(memory_result=pb.MemoryResult(id=live.memory_write.id, ok=ok))
        result = pb.InvokeResult(result=H.FUNCTION)
        if answer is not None and answer.HasField("invoke_result"):
            result.CopyFrom(answer.invoke_result)
        result.id = live.invoke.id
        return pb.AttachRequest(invoke_result=result)

    async def _send(self, request: pb.AttachRequest) -> None:
        async with asyncio.timeout(ANSWER_S):
            await self._call.write(request)

    async def _receive(self) -> pb.AttachResponse | None:
        """The next message; None at the end of the stream."""
        async with asyncio.timeout(ANSWER_S):
            response = await self._call.read()
        return None if response is grpc.aio.EOF else response

    # Comparing.

    def _compare_replies(self, name: str, step: Step, live: Step) -> None:
        route, trap = self._offer.routes[step.request.trap.route], step.request.trap
        for rule in rules_for(name, trap):
            self._outcome.left_out[f"{name}: {rule.why}"] += 1
        recorded, now = step.response.reply, live.response.reply
        expected, got = masked_reply(name, trap, recorded), masked_reply(name, trap, now)
        for wrote, writes in unequal(expected.writes, got.writes):
            self._differ("memory write", *first_difference(wrote, writes))
        expected.ClearField("writes")
        got.ClearField("writes")
        if expected != got:
            self._differ("reply", reply_text(route, recorded), reply_text(route, now))

    def _compare_interrupts(self) -> None:
        """How often and when depends on who types and how fast. Input that no guest read was not typed again."""
        recorded, live = self._recorded.sources, self._live.sources
        if recorded:
            self._outcome.left_out["interrupts outside of calls: their number and moments"] += 1
        missing = recorded - live if self._typed else set()
        for source in sorted(missing):
            self._differ("interrupts", f"source {source:#x}", "not a single one")
        for source in sorted(live - recorded):
            self._differ("interrupts", f"none of source {source:#x}", "there are")

    def _differ(self, what: str, expected: str, got: str) -> None:
        self._outcome.differences += 1
        if self._outcome.differences <= MAX_REPORTED:
            self._report(Difference(self._number, self._time_ns, self._text, what, expected, got))
