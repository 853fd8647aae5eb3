# SPDX-License-Identifier: GPL-2.0-or-later
"""The console of a back end that a recording stands in for, as a terminal sees it."""

from __future__ import annotations

import asyncio
import tempfile

import grpc.aio

from splitvisor.recording.stand_in_console import OUTPUT_BYTES, Output, StandInConsoles
from splitvisor.rpc import console_pb2, console_pb2_grpc
from tests.component.console_harness import DEADLINE, Viewer

UNIT = b"\x1b[1;31m"


def test_what_comes_late_begins_between_two_sequences_and_asks_nothing() -> None:
    async def scenario(address: str, output: Output) -> None:
        text = UNIT * (OUTPUT_BYTES // len(UNIT) + 100) + b"\x1b[6n."
        output.write("vm", text)
        async with Viewer(address) as viewer:
            offset = (await viewer.opened()).offset
            assert offset % len(UNIT) == 0
            shown = await viewer.output(len(text) - offset)
            assert shown.endswith(UNIT + b"\0\0\0\0.")
            output.write("vm", b"\x1b[6n")
            assert await viewer.output(4) == b"\x1b[6n"
        async with grpc.aio.insecure_channel(address) as channel:
            request = console_pb2.ReadTranscriptRequest(vm="vm", max_bytes=28)
            responses = console_pb2_grpc.ConsoleServiceStub(channel).ReadTranscript(request)
            read = [response.data async for response in responses]
        assert b"".join(read) == UNIT * 2 + b"\x1b[6n.\x1b[6n"

    async def run(directory: str) -> None:
        output, server, address = Output(), grpc.aio.server(), f"unix:{directory}/vio.sock"
        console_pb2_grpc.add_ConsoleServiceServicer_to_server(StandInConsoles(output), server)
        server.add_insecure_port(address)
        await server.start()
        try:
            async with asyncio.timeout(DEADLINE):
                await scenario(address, output)
        finally:
            await server.stop(None)

    with tempfile.TemporaryDirectory(prefix="sv", dir="/tmp") as directory:
        asyncio.run(run(directory))
