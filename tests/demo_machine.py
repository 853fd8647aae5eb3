# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo guest on service processes of a test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import grpc

from splitvisor.rpc import machine_pb2 as pb
from splitvisor.rpc import machine_pb2_grpc, trap_pb2
from tests.services import Service

SECONDS = 30.0
_BACKENDS = {"hcall": "hcall_service", "vio": "vio_service", "of-client": "of_client_service"}


@contextmanager
def machine_stub(services: dict[str, Service]) -> Iterator[machine_pb2_grpc.MachineServiceStub]:
    """The control of these services' machine."""
    with grpc.insecure_channel(services["cpu"].address) as channel:
        yield machine_pb2_grpc.MachineServiceStub(channel)


def start_demo(
    stub: machine_pb2_grpc.MachineServiceStub, services: dict[str, Service], devices: Sequence[trap_pb2.DeviceSpec] = ()
) -> None:
    """Start the demo guest, with one terminal and perhaps more devices, as VM "demo"."""
    config = pb.MachineConfig(
        name="demo",
        memory_mib=256,
        vcpus=1,
        devices=[trap_pb2.DeviceSpec(kind="vty"), *devices],
        backends=[pb.BackendAddress(name=name, address=services[flag].address) for flag, name in _BACKENDS.items()],
    )
    stub.StartMachine(pb.StartMachineRequest(config=config), timeout=SECONDS)
