# SPDX-License-Identifier: GPL-2.0-or-later
"""vio_service as a service: traps from cpu_service, consoles for terminals, and what is on the buses."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio

from splitvisor.backend.vio.hcall_client import HcallServiceClient
from splitvisor.backend.vio.server import VioBusServicer
from splitvisor.observe.metrics import Sample
from splitvisor.rpc import console_pb2, console_pb2_grpc, trap_pb2_grpc, vio_bus_pb2_grpc
from splitvisor.service.interface import Started
from splitvisor.service.serve import SettingError
from splitvisor.trap.server import TrapServicer
from vio_service.console.directory import consoles_of
from vio_service.console.output_log import BACKLOG_BYTES, REPLAY_BYTES
from vio_service.console.server import ConsoleServicer
from vio_service.console.transcript import FILE_BYTES, KEPT_FILES, TranscriptDirectory
from vio_service.console.vm_consoles import ConsoleSettings
from vio_service.devices.llan.metrics import network_samples
from vio_service.devices.vscsi.metrics import disk_samples
from vio_service.devices.vty.metrics import console_samples
from vio_service.session import NAME, vio_session

if TYPE_CHECKING:
    from vio_service.console.telnet import TelnetListener

SERVICES = ("splitvisor.trap.v1.TrapService", "splitvisor.control.v1.ConsoleService", "splitvisor.control.v1.VioBusService")


@dataclass(frozen=True)
class Options:
    """What `splitvisor service vio` may set; devices and their settings come with each VM."""

    device_tree: str = field(
        default="",
        metadata={
            "metavar": "ADDRESS",
            "help": "the hcall_service that stores the machines' trees; without it no device can be added to a running guest",
        },
    )
    replay_bytes: int = field(
        default=REPLAY_BYTES, metadata={"help": f"past output sent to a terminal when it attaches (default: {REPLAY_BYTES})"}
    )
    transcripts: Path | None = field(
        default=None,
        metadata={"metavar": "DIR", "help": "keep a transcript of each console as VM-ADDRESS.log in this directory"},
    )
    transcript_bytes: int = field(default=FILE_BYTES, metadata={"help": f"rotate a file of that size (default: {FILE_BYTES})"})
    transcript_files: int = field(
        default=KEPT_FILES, metadata={"metavar": "N", "help": f"rotated files to keep (default: {KEPT_FILES})"}
    )
    telnet: str = field(
        default="",
        metadata={"metavar": "HOST:PORT", "help": "loopback address for telnet to the consoles; it asks for VM[:UNIT]"},
    )
    telnet_anywhere: str = field(
        default="",
        metadata={"metavar": "HOST:PORT", "help": "the same on any network: telnet has no passwords and no encryption"},
    )
    telnet_consoles: str = field(
        default="",
        metadata={"metavar": "LIST", "help": "VM[:UNIT]=PORT,...: further ports on the same host, each for one console"},
    )


async def start(server: grpc.aio.Server, options: Options) -> Callable[[], Awaitable[None]]:
    """Add the servicers to a server that has not started; the result is awaited when the service ends. Raises SettingError."""
    if not 0 <= options.replay_bytes <= BACKLOG_BYTES:
        raise SettingError(f"--replay-bytes {options.replay_bytes}: give 0 to {BACKLOG_BYTES}")
    transcripts: TranscriptDirectory | None = None
    lock = -1
    if options.transcripts is not None:
        transcripts = TranscriptDirectory(options.transcripts.absolute(), options.transcript_bytes, options.transcript_files)
        lock = transcripts.lock()
    consoles = ConsoleSettings(options.replay_bytes, transcripts)
    hcall_service = HcallServiceClient(options.device_tree) if options.device_tree else None
    traps = TrapServicer(NAME, lambda vm: vio_session(vm, hcall_service, consoles))
    trap_pb2_grpc.add_TrapServiceServicer_to_server(traps, server)
    console_pb2_grpc.add_ConsoleServiceServicer_to_server(ConsoleServicer(traps, transcripts), server)
    vio_bus_pb2_grpc.add_VioBusServiceServicer_to_server(VioBusServicer(traps), server)

    telnet = await _start_telnet(traps, options) if options.telnet or options.telnet_anywhere or options.telnet_consoles else None

    async def stop() -> None:
        for console in consoles_of(traps):
            console.end(console_pb2.CONSOLE_END_REASON_SHUTDOWN, "vio_service shuts down")
        if telnet is not None:
            await telnet.close()
        await traps.close()
        if hcall_service is not None:
            await hcall_service.close()
        if lock >= 0:
            os.close(lock)

    def samples() -> Iterator[Sample]:
        yield from console_samples(traps)
        yield from disk_samples(traps)
        yield from network_samples(traps)

    return Started(stop, measure=(traps.measure, lambda: samples), trace=(traps.observe,))


async def _start_telnet(traps: TrapServicer, options: Options) -> TelnetListener:
    from vio_service.console.telnet import TelnetListener, telnet_ports  # few have a use for it

    listener = TelnetListener(traps)
    await listener.start(telnet_ports(options.telnet, options.telnet_anywhere, options.telnet_consoles))
    return listener
