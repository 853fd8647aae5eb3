# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots between files here and a cpu_service that may be elsewhere: the client's half of SaveMachine and RestoreMachine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from splitvisor.machine.snapshot_file import SnapshotError, parse_machine, read_sections
from splitvisor.process.inputs import open_input
from splitvisor.process.outputs import PRIVATE, Content, Output
from splitvisor.rpc import machine_pb2 as pb

PART_BYTES = 1 << 20


def restore_requests(
    vm: str, file: Path, backends: Mapping[str, str], *, same_host: bool = False
) -> Iterator[pb.RestoreMachineRequest]:
    """Yield the requests that restore a snapshot file and let the machine run.

    Args:
        vm: what it is a snapshot of.
        file: the snapshot.
        backends: where back ends are, by name.
        same_host: cpu_service can open the file as well as this process can, and does.

    Raises OSError.
    """
    addresses = [pb.BackendAddress(name=name, address=address) for name, address in backends.items()]
    path = str(file.absolute()) if same_host else ""
    yield pb.RestoreMachineRequest(options=pb.RestoreOptions(vm=vm, backends=addresses, file=path))
    if not same_host:
        with open_input(file) as snapshot:
            while part := snapshot.read(PART_BYTES):
                yield pb.RestoreMachineRequest(data=part)
    yield pb.RestoreMachineRequest(complete=pb.RestoreComplete())
    yield pb.RestoreMachineRequest(go=pb.RestoreGo())


def snapshot_output(vm: str, path: Path) -> Output:
    """Return the output of a snapshot, which replaces an earlier one of the same VM. Raises OSError."""

    def is_in(file: BinaryIO) -> bool:
        try:
            _, payload = next(read_sections(file))
            return parse_machine(payload).config.name == vm
        except SnapshotError:
            return False

    return Output(path, Content(f"a snapshot of VM {vm!r}", is_in), PRIVATE)


def write_snapshot(responses: Iterable[pb.SaveMachineResponse], output: Output) -> tuple[pb.MachineSaved, int]:
    """Write what SaveMachine answers; return its last words and the size of the snapshot.

    Raises OSError, grpc.RpcError, and SnapshotError when the stream ends too early.
    """
    size = 0
    with output.written() as file:
        for response in responses:
            if response.HasField("saved"):
                return response.saved, size
            file.write(response.data)
            size += len(response.data)
        raise SnapshotError("cpu_service ended the snapshot before it was complete", "try again")
