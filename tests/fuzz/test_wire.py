# SPDX-License-Identifier: GPL-2.0-or-later
"""Every rpc of every service gets messages that are almost right: services live, stay small, and answer.

SPLITVISOR_FUZZ_MESSAGES sets how many there are in all (10,000), SPLITVISOR_FUZZ_SEED where they start.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2, health_pb2_grpc

from splitvisor.rpc import trap_pb2
from tests.fuzz.fuzzed_services import CUT_OFF, GROWTH_KIB, end_of, errors_logged, resident_kib
from tests.fuzz.mutator import Mutator
from tests.rpc_methods import message, methods, services
from tests.services import Service

MESSAGES = int(os.environ.get("SPLITVISOR_FUZZ_MESSAGES", "10000"))
SEED = int(os.environ.get("SPLITVISOR_FUZZ_SEED", "1"))
AT_ONCE = 24
CALL_S, DEADLINE_S = 0.25, 30.0
"""A call that waits for something, such as a watch, is left after the first; health and the end may take the second."""
ATTACH = "/splitvisor.trap.v1.TrapService/Attach"
STREAM_MESSAGES = 8
OWNERS = {
    "MachineService": ("cpu",),
    "TrapService": ("hcall", "vio", "of-client"),
    "DeviceTreeService": ("hcall",),
    "PlatformEventService": ("hcall",),
    "ConsoleService": ("vio",),
    "VioBusService": ("vio",),
}


def is_message(descriptor: Any, data: bytes) -> bool:
    """Whether bytes are a message at all; gRPC itself ends calls of those that are not, with UNKNOWN or INTERNAL."""
    try:
        message(descriptor).ParseFromString(data)
    except DecodeError:
        return False
    return True


def conversation(descriptor: Any, mutator: Mutator) -> list[bytes]:
    """A trap stream: an introduction that is taken most of the time, and calls in order, some of them changed."""
    source = mutator.source
    devices = [trap_pb2.DeviceSpec(kind=kind) for kind in ("vty", "nvram")]
    hello = trap_pb2.Hello(
        vm=f"vm-{source.randrange(300)}",
        beginning=trap_pb2.BEGINNING_RUNNING,
        incarnation=source.randrange(1, 1 << 60),
        vcpus=2,
        ram_bytes=1 << 20,
        devices=devices,
    )
    made = [trap_pb2.AttachRequest(hello=hello).SerializeToString()]
    for number in range(1, source.randint(2, STREAM_MESSAGES)):
        request = mutator.filled(descriptor)
        if request.HasField("trap"):
            request.trap.vcpu, request.trap.sequence, request.trap.route = 0, number, source.randrange(48)
        data = request.SerializeToString()
        made.append(mutator.changed(data) if source.random() < 0.2 else data)
    return made if source.random() < 0.9 else [mutator.changed(each) for each in made]


async def call(channel: Any, path: str, method: Any, mutator: Mutator) -> tuple[int, str]:
    """Make one call; return how many messages it took and how it ended."""
    if path == ATTACH:
        messages = conversation(method.input_type, mutator)
    else:
        count = mutator.source.randint(2, STREAM_MESSAGES) if method.client_streaming else 1
        messages = [mutator.message(method.input_type) for _ in range(count)]
    count = len(messages)

    async def requests() -> Any:
        for each in messages:
            yield each

    stream = channel.stream_stream(path)(requests(), timeout=CALL_S)
    try:
        async for _ in stream:
            pass
    except grpc.aio.AioRpcError as error:
        if error.details() != CUT_OFF and all(is_message(method.input_type, each) for each in messages):
            return count, end_of(error)
        return count, "no message, or cut off"
    return count, "OK"


async def bombard(running: dict[str, Service], words: list[str]) -> Counter[tuple[str, str]]:
    """Send everything; return how the calls ended, by rpc."""
    mutator = Mutator(SEED, words)
    targets = [
        (owner, path, method) for service in services() for path, method in methods(service) for owner in OWNERS[service.name]
    ]
    ends: Counter[tuple[str, str]] = Counter()
    sent = 0
    channels = {name: grpc.aio.insecure_channel(service.address) for name, service in running.items()}

    async def worker(number: int) -> None:
        nonlocal sent
        place = number
        while sent < MESSAGES:
            owner, path, method = targets[place % len(targets)]
            place += 1 if AT_ONCE % len(targets) == 0 else AT_ONCE
            count, end = await call(channels[owner], path, method, mutator)
            sent += count
            ends[path, end] += 1

    await asyncio.gather(*(worker(number) for number in range(AT_ONCE)))
    for channel in channels.values():
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        await channel.close(None)
    assert {path for path, _ in ends} == {path for _, path, _ in targets}
    return ends


def test_services_outlive_messages_that_are_almost_right(fuzzed: dict[str, Service], short_path: Path) -> None:
    before = {name: resident_kib(service) for name, service in fuzzed.items()}
    words = ["", "vm", "guest", "vty", "nvram", "bytes", "a" * 63, "a" * 300, "/", "/vdevice", "name", "\u00e9", "\0",
             str(short_path / "file"), str(short_path / "x.ram"), *(f"vm-{number}" for number in range(8))]  # fmt: skip
    ends = asyncio.run(bombard(fuzzed, words))
    grown = {name: resident_kib(service) - before[name] for name, service in fuzzed.items()}
    print("grown by KiB:", grown)
    for (path, end), count in sorted(ends.items()):
        print(f"{count:>7} {end:<24} {path}")
    assert all(service.process.poll() is None for service in fuzzed.values())
    assert {name: kib for name, kib in grown.items() if kib > GROWTH_KIB} == {}
    unexpected = {key: count for key, count in ends.items() if ":" in key[1]}
    assert unexpected == {}, "a handler raised what its contract does not have"
    assert errors_logged(fuzzed) == []
