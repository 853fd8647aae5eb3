# SPDX-License-Identifier: GPL-2.0-or-later
"""Recordings made by hand, for tests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from splitvisor.recording.file import RecordingReader, RecordingWriter
from splitvisor.rpc import machine_pb2 as mpb
from splitvisor.rpc import recording_pb2 as rpb
from splitvisor.rpc import trap_pb2 as pb

LINK = "vio_service"
ROUTES = (
    pb.Route(kind=pb.CALL_KIND_HYPERCALL, token=0xF100, name="H_ADD", arguments=1),
    pb.Route(kind=pb.CALL_KIND_RTAS, name="test,sum"),
)


def start() -> rpb.Record:
    return rpb.Record(start=rpb.RecordingStart(config=mpb.MachineConfig(name="vm"), backends=[LINK]))


def request(time_ns: int, message: pb.AttachRequest) -> rpb.Record:
    return rpb.Record(time_ns=time_ns, link=1, request=message)


def response(time_ns: int, message: pb.AttachResponse) -> rpb.Record:
    return rpb.Record(time_ns=time_ns, link=1, response=message)


def attached(time_ns: int = 1) -> list[rpb.Record]:
    return [
        request(time_ns, pb.AttachRequest(hello=pb.Hello(vm="vm", beginning=pb.BEGINNING_RUNNING, vcpus=1, ram_bytes=1 << 28))),
        response(time_ns, pb.AttachResponse(offer=pb.Offer(backend=LINK, routes=ROUTES))),
    ]


def trap(sequence: int, *arguments: int, vcpu: int = 0, route: int = 0) -> pb.Trap:
    return pb.Trap(vcpu=vcpu, sequence=sequence, route=route, arguments=arguments)


def call(time_ns: int, sequence: int, argument: int, output: int) -> list[rpb.Record]:
    """A call and its reply."""
    reply = pb.Reply(sequence=sequence, outputs=[output])
    return [
        request(time_ns, pb.AttachRequest(trap=trap(sequence, argument))),
        response(time_ns + 1, pb.AttachResponse(reply=reply)),
    ]


def some_calls(count: int) -> list[rpb.Record]:
    calls = (call(10 * number, number, number, number * number) for number in range(1, count + 1))
    end = rpb.Record(time_ns=10**9, end=rpb.RecordingEnd())
    return [start(), *attached(), *(record for pair in calls for record in pair), end]


def write(path: Path, records: Iterable[rpb.Record], flush_each: int = 1 << 30) -> Path:
    writer = RecordingWriter(path)
    for number, record in enumerate(records, 1):
        writer.append(record.SerializeToString())
        if number % flush_each == 0:
            writer.flush()
    writer.close()
    return path


def read(path: Path) -> tuple[list[rpb.Record], str]:
    """The records, and how the file ends when it was cut."""
    with path.open("rb") as file:
        reader = RecordingReader(file, path.name)
        return list(reader), reader.cut
