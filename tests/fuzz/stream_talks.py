# SPDX-License-Identifier: GPL-2.0-or-later
"""Conversations on the streams of consoles, watches and snapshots that get past their first message, and go wrong behind it."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio

from splitvisor.machine.snapshot_file import Kind, SectionWriter, read_sections
from splitvisor.rpc import console_pb2 as cpb
from splitvisor.rpc import console_pb2_grpc, device_tree_pb2, device_tree_pb2_grpc, machine_pb2, machine_pb2_grpc, state_pb2
from tests.fuzz.fuzzed_services import end_of
from tests.fuzz.mutator import EDGES, Mutator

ANSWER_S = 20.0
CALM_S = 0.2
"""How long a watch that has answered is listened to."""

_SECTIONS: Mapping[Kind, Any] = {
    Kind.MACHINE: state_pb2.SavedMachine,
    Kind.VCPUS: state_pb2.SavedVcpus,
    Kind.INTERRUPTS: state_pb2.SavedInterrupts,
    Kind.BACKEND: state_pb2.SavedBackend,
    Kind.RAM: state_pb2.SavedPages,
    Kind.HASH_TABLE: state_pb2.SavedPages,
}
STATES: Mapping[str, Any] = {
    "vio_service": state_pb2.VioState,
    "hcall_service": state_pb2.PlatformState,
    "of_client_service": state_pb2.ClientInterfaceState,
}
"""What the state of each back end is."""


def altered_state(mutator: Mutator, backend: str, state: bytes) -> bytes:
    """The state of a back end with something else in it, that it can still read most of the time."""
    if mutator.source.random() < 0.1:
        return mutator.changed(state)
    altered: bytes = mutator.altered(STATES[backend].FromString(state)).SerializeToString()
    return altered


class ConsoleTalk:
    """A terminal that types, resizes and reads, until it says what no terminal says."""

    def __init__(self, channel: grpc.aio.Channel, mutator: Mutator, vm: str) -> None:
        self._stub: Any = console_pb2_grpc.ConsoleServiceStub(channel)
        self._mutator, self._source, self._vm = mutator, mutator.source, vm
        self.sent = 0
        self.handled: Counter[str] = Counter()

    async def run(self) -> str:
        """Attach, type, and see all of it taken; return how it ended."""
        source = self._source
        sizes = [source.choice((0, 1, 7, 300)) for _ in range(source.randint(1, 12))]
        opening = cpb.ConsoleOpen(
            vm=self._vm, writer=True, force=True, client_name=f"terminal {source.randrange(1 << 32)}",
            replay=source.random() < 0.5, resume_instance=source.choice(EDGES), resume_position=source.choice(EDGES),
        )  # fmt: skip
        waited = asyncio.Event()

        async def requests() -> AsyncIterator[cpb.AttachConsoleRequest]:
            yield cpb.AttachConsoleRequest(open=opening)
            for size in sizes:
                self.sent += 2
                rows, columns = (source.choice(EDGES) & 0xFFFF for _ in range(2))
                yield cpb.AttachConsoleRequest(window_size=cpb.WindowSize(rows=rows, columns=columns))
                yield cpb.AttachConsoleRequest(input=source.randbytes(size))
            await waited.wait()
            self.sent += 1
            match source.randrange(4):
                case 0:
                    yield cpb.AttachConsoleRequest()
                case 1:
                    yield cpb.AttachConsoleRequest(open=opening)
                case 2:
                    yield cpb.AttachConsoleRequest(window_size=cpb.WindowSize(rows=1 << 20))
                case _:
                    yield cpb.AttachConsoleRequest(input=bytes(70_000))

        call = self._stub.AttachConsole(requests())
        left = sum(sizes)
        try:
            async with asyncio.timeout(ANSWER_S):
                async for response in call:
                    left -= response.input_accepted
                    if response.HasField("opened"):
                        self.handled["open"] += 1
                    if response.HasField("ended"):
                        return "OK"
                    if not left and not waited.is_set():
                        self.handled["input and size"] += 2 * len(sizes)
                        waited.set()
        except grpc.aio.AioRpcError as error:
            return end_of(error)
        finally:
            waited.set()
            call.cancel()
        return "OK"


class WatchTalk:
    """The rpcs that answer one request with a stream: the VM is there, and what else is asked for is anything."""

    def __init__(self, channels: Mapping[str, grpc.aio.Channel], mutator: Mutator, vm: str) -> None:
        machine: Any = machine_pb2_grpc.MachineServiceStub(channels["cpu"])
        console: Any = console_pb2_grpc.ConsoleServiceStub(channels["vio"])
        trees: Any = device_tree_pb2_grpc.DeviceTreeServiceStub(channels["hcall"])
        self._mutator, self._vm = mutator, vm
        self._asks: Sequence[tuple[str, Any, Callable[[], Any]]] = (
            ("WatchTraps", machine.WatchTraps, lambda: self._filled(machine_pb2.WatchTrapsRequest, vm=vm, incarnation=0)),
            ("WatchEvents", machine.WatchEvents, lambda: self._filled(machine_pb2.WatchEventsRequest, vm=vm, incarnation=0)),
            ("SaveMachine", machine.SaveMachine, lambda: machine_pb2.SaveMachineRequest(vm=vm)),
            ("ReadTranscript", console.ReadTranscript, lambda: self._filled(cpb.ReadTranscriptRequest, vm=vm, unit_address=0)),
            ("WatchRevisions", trees.WatchRevisions, lambda: device_tree_pb2.WatchRevisionsRequest(vm=vm)),
        )
        self.sent = 0
        self.handled: Counter[str] = Counter()

    def _filled(self, kind: Any, **fields: object) -> Any:
        made = self._mutator.filled(kind.DESCRIPTOR)
        for name, value in fields.items():
            setattr(made, name, value)
        return made

    async def run(self) -> list[tuple[str, str]]:
        """Ask each once, leave some in the middle; return how they ended."""
        return [(name, await self._ask(name, method(make()))) for name, method, make in self._asks]

    async def _ask(self, name: str, call: Any) -> str:
        self.sent += 1
        try:
            async with asyncio.timeout(ANSWER_S):
                # Whatever calls are filtered out, the initial metadata says that they are watched.
                await (call.initial_metadata() if name == "WatchTraps" else anext(aiter(call)))
            self.handled[name] += call.done() is False or await call.code() is grpc.StatusCode.OK
            with suppress(TimeoutError):
                async with asyncio.timeout(CALM_S):
                    async for _ in call:
                        if self._mutator.source.random() < 0.3:
                            break
        except grpc.aio.AioRpcError as error:
            return end_of(error)
        finally:
            call.cancel()
        return "OK"


class RestoreTalk:
    """Restores of a snapshot of which one field was altered, with every digest right."""

    def __init__(self, channel: grpc.aio.Channel, mutator: Mutator, vm: str, snapshot: bytes) -> None:
        self._stub: Any = machine_pb2_grpc.MachineServiceStub(channel)
        self._mutator, self._source, self._vm = mutator, mutator.source, vm
        self._sections = list(read_sections(io.BytesIO(snapshot)))
        self.sent = 0
        self.handled: Counter[str] = Counter()

    def _altered(self) -> tuple[Kind, bytes]:
        writer = SectionWriter()
        place = self._source.randrange(len(self._sections))
        made = [writer.header()]
        for number, (kind, payload) in enumerate(self._sections):
            made.append(writer.section(kind, self._section(kind, payload) if number == place else payload))
        return self._sections[place][0], b"".join((*made, writer.end()))

    def _section(self, kind: Kind, payload: bytes) -> bytes:
        message = _SECTIONS[kind].FromString(payload)
        if kind is Kind.BACKEND and self._source.random() < 0.8:
            message.state = altered_state(self._mutator, message.backend, message.state)
        else:
            message = self._mutator.altered(message)
        altered: bytes = message.SerializeToString()
        return altered

    async def run(self) -> str:
        """Restore, mostly let it run, and stop what runs; return how it ended."""
        kind, snapshot = self._altered()
        options = machine_pb2.RestoreOptions(vm=self._vm, moved=self._source.random() < 0.5)
        ready = asyncio.Event()

        async def requests() -> AsyncIterator[machine_pb2.RestoreMachineRequest]:
            self.sent += 1
            yield machine_pb2.RestoreMachineRequest(options=options)
            for start in range(0, len(snapshot), 1 << 18):
                self.sent += 1
                yield machine_pb2.RestoreMachineRequest(data=snapshot[start : start + (1 << 18)])
            self.sent += 1
            yield machine_pb2.RestoreMachineRequest(complete=machine_pb2.RestoreComplete())
            await ready.wait()
            self.sent += 1
            if self._source.random() < 0.8:
                yield machine_pb2.RestoreMachineRequest(go=machine_pb2.RestoreGo())
            else:
                yield machine_pb2.RestoreMachineRequest(data=b"more")

        call = self._stub.RestoreMachine(requests(), timeout=ANSWER_S)
        try:
            async for response in call:
                self.handled[f"{kind.name.lower()}, {response.WhichOneof('message')}"] += 1 if ready.is_set() else self.sent
                ready.set()
        except grpc.aio.AioRpcError as error:
            if "SHA-256" not in (error.details() or "") and not ready.is_set():
                self.handled[f"{kind.name.lower()}, refused for what is in it"] += self.sent
            return end_of(error)
        finally:
            ready.set()
            with suppress(grpc.aio.AioRpcError):
                await self._stub.StopMachine(machine_pb2.StopMachineRequest(vm=self._vm), timeout=ANSWER_S)
        return "OK"
