# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots between files here and a cpu_service that may be elsewhere: the client's half of SaveMachine and RestoreMachine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from splitvisor.machine.snapshot_file import SnapshotError
from splitvisor.process.files import replaced_file
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
        with file.open("rb", buffering=0) as snapshot:
            while part := snapshot.read(PART_BYTES):
                yield pb.RestoreMachineRequest(data=part)
    yield pb.RestoreMachineRequest(complete=pb.RestoreComplete())
    yield pb.RestoreMachineRequest(go=pb.RestoreGo())


def write_snapshot(responses: Iterable[pb.SaveMachineResponse], path: Path) -> pb.MachineSaved:
    """Write what SaveMachine answers to a file that is there whole or not at all.

    Raises OSError, grpc.RpcError, and SnapshotError when the stream ends too early.
    """
    with replaced_file(path) as file:
        for response in responses:
            if response.HasField("saved"):
                return response.saved
            file.write(response.data)
        raise SnapshotError("cpu_service ended the snapshot before it was complete", "try again")
