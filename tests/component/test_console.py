# SPDX-License-Identifier: GPL-2.0-or-later
"""vio_service over a real gRPC server: traps of a VM on one side, ConsoleService and VioBusService on the other."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio
import pytest

from splitvisor.net.times import duration
from splitvisor.papr.codes import H, RtasStatus
from splitvisor.rpc import console_pb2, console_pb2_grpc, vio_bus_pb2, vio_bus_pb2_grpc
from tests.component.console_harness import VTY, BareServer, Guest, Viewer, VioServer, run_bare, vio_server
from vio_service.console.directory import find_console


def run(scenario: Callable[[VioServer], Awaitable[None]]) -> None:
    async def with_server() -> None:
        async with vio_server() as server:
            await scenario(server)

    asyncio.run(with_server())


def run_with_transcripts(scenario: Callable[[VioServer], Awaitable[None]]) -> None:
    async def with_server() -> None:
        async with vio_server(transcripts=True) as server:
            await scenario(server)

    asyncio.run(with_server())


def test_the_offer_posts_output_for_the_vtys_that_exist_and_describes_the_bus() -> None:
    async def scenario(server: VioServer) -> None:
        async with Guest(server.address, vtys=2) as guest:
            assert guest.offer.backend == "vio_service"
            posted = guest.offer.routes[guest.routes["H_PUT_TERM_CHAR"]].posted
            assert list(posted.key_values) == [0, VTY, VTY + 1]
            assert (posted.credit_bytes, posted.key_argument, posted.size_argument, posted.max_size) == (65536, 0, 1, 16)
            assert [node.path for node in guest.offer.nodes][:2] == ["/vdevice", "/vdevice/vty@71000000"]

    run(scenario)


def test_posted_output_reaches_every_reader_in_order_and_without_gaps() -> None:
    async def scenario(server: VioServer) -> None:
        text = b"".join(b"%d\n" % number for number in range(50_000))
        async with Guest(server.address) as guest, Viewer(server.address) as first, Viewer(server.address) as second:
            assert (await first.opened()).offset == 0
            await second.opened()
            guest.post(text)
            one, other, _ = await asyncio.gather(first.output(len(text)), second.output(len(text)), guest.settle())
            assert one == text
            assert other == text

    run(scenario)


def test_a_late_reader_gets_the_replay_and_its_position() -> None:
    async def scenario(server: VioServer) -> None:
        async with Guest(server.address) as guest:
            guest.post(b"early" + b"x" * 65536)
            await guest.settle()
            async with Viewer(server.address) as viewer:
                assert (await viewer.opened()).offset == 5
                assert await viewer.output(65536) == b"x" * 65536
            async with Viewer(server.address, replay=False) as viewer:
                assert (await viewer.opened()).offset == 65541
                guest.post(b"new")
                assert await viewer.output(3) == b"new"

    run(scenario)


def test_a_reader_that_is_too_slow_is_told_how_much_it_missed_and_goes_on() -> None:
    async def scenario(server: BareServer) -> None:
        async with Guest(server.address), Viewer(server.address, client_name="slow") as viewer:
            await viewer.opened()
            # Far more than its backlog and what gRPC buffers on the way; nothing that is left out after a skip.
            text = base64.b64encode(os.urandom(12 << 20))
            for start in range(0, len(text), 1 << 16):
                find_console(server.traps, "vm", 0).write(text[start : start + (1 << 16)])
                await asyncio.sleep(0)
            position = skipped = 0
            while position < len(text):
                response = await anext(viewer.responses)
                if response.HasField("skipped"):
                    skipped += response.skipped
                    position += response.skipped
                else:
                    assert text.startswith(response.output, position)
                    position += len(response.output)
            assert skipped > 0
            async with grpc.aio.insecure_channel(server.address) as channel:
                consoles = console_pb2_grpc.ConsoleServiceStub(channel)
                (console,) = (await consoles.ListConsoles(console_pb2.ListConsolesRequest())).consoles
            assert [(each.name, each.skipped_bytes) for each in console.clients] == [("slow", skipped)]

    run_bare(scenario)


async def read_transcript(server: VioServer, **request: object) -> tuple[console_pb2.ReadTranscriptResponse, bytes]:
    async with grpc.aio.insecure_channel(server.address) as channel:
        wanted = console_pb2.ReadTranscriptRequest(**{"vm": "vm", **request})  # type: ignore[arg-type]
        first, *rest = [part async for part in console_pb2_grpc.ConsoleServiceStub(channel).ReadTranscript(wanted)]
    return first, b"".join(part.data for part in rest)


def test_what_was_said_can_be_read_and_followed_without_gap_or_repeat() -> None:
    async def scenario(server: VioServer) -> None:
        async with Guest(server.address) as guest:
            text = base64.b64encode(os.urandom(150_000))
            guest.post(text)
            await guest.settle()
            first, read = await read_transcript(server)
            assert (read, first.end_position) == (text, len(text))
            assert (await read_transcript(server, max_bytes=10))[1] == text[-10:]
            guest.post(b"next")
            resume = {"resume_instance": first.instance, "resume_position": first.end_position}
            async with Viewer(server.address, **resume) as viewer:
                assert (await viewer.opened()).offset == len(text)
                assert await viewer.output(4) == b"next"
            with pytest.raises(grpc.aio.AioRpcError, match="has no VTY at 0x5"):
                await read_transcript(server, unit_address=5)

    run(scenario)


def test_a_transcript_can_be_read_when_its_vm_has_ended() -> None:
    async def scenario(server: VioServer) -> None:
        async with Guest(server.address) as guest:
            guest.post(b"last words")
            await guest.settle()
            await guest.end()
        first, read = await read_transcript(server)
        assert (first.instance, first.end_position, read) == (0, 0, b"last words")
        for vm in ("other", "../vm"):
            with pytest.raises(grpc.aio.AioRpcError, match="no VM"):
                await read_transcript(server, vm=vm)

    run_with_transcripts(scenario)


def test_a_restart_with_transcripts_is_not_noticed_by_position_or_instance() -> None:
    async def scenario(server: VioServer) -> None:
        async with Guest(server.address, vtys=2) as guest:
            guest.post(b"before")
            await guest.settle()
            async with Viewer(server.address) as viewer:
                opened = await viewer.opened()
        await server.stop()
        await server.start()
        async with Guest(server.address, vtys=2, sequence=1) as guest:
            guest.post(b" after")
            async with Viewer(server.address) as viewer:
                again = await viewer.opened()
                assert (again.instance, again.offset) == (opened.instance, opened.offset)
                assert await viewer.output(12) == b"before after"

    run_with_transcripts(scenario)


def test_typed_input_interrupts_the_guest_and_is_read() -> None:
    async def scenario(server: VioServer) -> None:
        async with Guest(server.address, vtys=2) as guest, Viewer(server.address, writer=True, unit_address=VTY + 1) as viewer:
            assert (await viewer.opened()).unit_address == VTY + 1
            viewer.type(b"uname -a\n")
            await viewer.accepted(9)
            assert await guest.interrupts.get() == 0x1101
            assert await guest.read(9, VTY + 1) == b"uname -a\n"
            assert (await guest.call("H_GET_TERM_CHAR", VTY)).outputs[0] == 0

    run(scenario)


def test_more_input_than_fits_waits_for_the_guest_and_arrives_whole() -> None:
    async def scenario(server: VioServer) -> None:
        data = os.urandom(150_000).replace(b"\r", b"\n")
        async with Guest(server.address) as guest, Viewer(server.address, writer=True) as viewer:
            window = (await viewer.opened()).input_window
            assert window == 65536
            for start in range(0, len(data), 50_000):
                viewer.type(data[start : start + 50_000])
            await viewer.accepted(window)
            got, _ = await asyncio.gather(guest.read(len(data)), viewer.accepted(len(data) - window))
            assert got == data

    run(scenario)


def test_the_terminal_may_wait_for_a_vm_that_is_not_there_yet() -> None:
    async def scenario(server: VioServer) -> None:
        async with Viewer(server.address, wait=duration(10)) as viewer:
            opened = asyncio.create_task(viewer.opened())
            async with Guest(server.address) as guest:
                await opened
                guest.post(b"hello")
                assert await viewer.output(5) == b"hello"

    run(scenario)


def test_the_end_of_the_vm_is_told_after_all_output() -> None:
    async def scenario(server: VioServer) -> None:
        text = b"last words " * 20_000
        async with Guest(server.address) as guest, Viewer(server.address) as viewer:
            await viewer.opened()
            guest.post(text)
            await guest.end()
            assert await viewer.output(len(text)) == text
            assert (await viewer.ended()).reason == console_pb2.CONSOLE_END_REASON_VM_ENDED
            with pytest.raises(StopAsyncIteration):
                await anext(viewer.responses)

    run(scenario)


def test_shutdown_is_told() -> None:
    async def scenario(server: VioServer) -> None:
        async with Guest(server.address), Viewer(server.address) as viewer:
            await viewer.opened()
            ended = asyncio.create_task(viewer.ended())
            await server.stop(grace=2)
            assert (await ended).reason == console_pb2.CONSOLE_END_REASON_SHUTDOWN
            await server.start()

    run(scenario)


def test_a_second_writer_is_refused_unless_it_forces() -> None:
    async def scenario(server: VioServer) -> None:
        async with Guest(server.address) as guest, Viewer(server.address, writer=True, client_name="alice") as alice:
            await alice.opened()
            async with Viewer(server.address, writer=True, client_name="bob") as bob:
                refusal = await bob.refusal()
                assert refusal.code() is grpc.StatusCode.FAILED_PRECONDITION
                assert "alice" in (refusal.details() or "")
            async with Viewer(server.address, writer=True, client_name="bob", force=True) as bob:
                await bob.opened()
                ended = await alice.ended()
                assert (ended.reason, ended.text) == (console_pb2.CONSOLE_END_REASON_TAKEN_OVER, "bob took over")
                bob.type(b"b")
                assert await guest.read(1) == b"b"

    run(scenario)


def test_a_writer_that_leaves_makes_room_and_one_that_ends_its_input_reads_on() -> None:
    async def scenario(server: VioServer) -> None:
        async with Guest(server.address) as guest, Viewer(server.address, writer=True, client_name="alice") as alice:
            await alice.opened()
            alice.type(b"a")
            alice.requests.put_nowait(None)
            await alice.accepted(1)
            assert await guest.read(1) == b"a"
            async with Viewer(server.address, writer=True, client_name="bob") as bob:
                await bob.opened()
                guest.post(b"for both")
                assert await alice.output(8) == await bob.output(8) == b"for both"

    run(scenario)


@pytest.mark.parametrize(
    ("opening", "code", "text"),
    [
        ({"vm": "other"}, grpc.StatusCode.NOT_FOUND, "no VM 'other'"),
        ({"unit_address": 5}, grpc.StatusCode.NOT_FOUND, "it has: 0x71000000"),
        ({"vm": ""}, grpc.StatusCode.INVALID_ARGUMENT, "names no VM"),
        ({"wait": duration(60.001)}, grpc.StatusCode.INVALID_ARGUMENT, "0 to 60 s"),
        ({"client_name": "a\x1b[2J"}, grpc.StatusCode.INVALID_ARGUMENT, "printable"),
    ],
)
def test_an_open_that_cannot_be_is_refused(opening: dict[str, object], code: grpc.StatusCode, text: str) -> None:
    async def scenario(server: VioServer) -> None:
        async with Guest(server.address), Viewer(server.address, **opening) as viewer:
            refusal = await viewer.refusal()
            assert refusal.code() is code
            assert text in (refusal.details() or "")

    run(scenario)


@pytest.mark.parametrize(
    ("request_", "writer"),
    [
        (console_pb2.AttachConsoleRequest(input=b"x"), False),
        (console_pb2.AttachConsoleRequest(input=bytes(65537)), True),
        (console_pb2.AttachConsoleRequest(open=console_pb2.ConsoleOpen(vm="vm")), True),
        (console_pb2.AttachConsoleRequest(), True),
    ],
)
def test_a_message_that_breaks_the_contract_ends_the_attachment(request_: console_pb2.AttachConsoleRequest, writer: bool) -> None:
    async def scenario(server: VioServer) -> None:
        async with Guest(server.address), Viewer(server.address, writer=writer) as viewer:
            await viewer.opened()
            viewer.requests.put_nowait(request_)
            assert (await viewer.refusal()).code() is grpc.StatusCode.INVALID_ARGUMENT

    run(scenario)


def test_consoles_and_buses_are_listed() -> None:
    async def scenario(server: VioServer) -> None:
        async with (
            Guest(server.address, vm="b") as guest,
            Guest(server.address, vm="a", vtys=2),
            Viewer(server.address, vm="b", writer=True, client_name="alice") as viewer,
            grpc.aio.insecure_channel(server.address) as channel,
        ):
            await viewer.opened()
            guest.post(b"12345")
            await viewer.output(5)
            consoles = console_pb2_grpc.ConsoleServiceStub(channel)
            listed = (await consoles.ListConsoles(console_pb2.ListConsolesRequest())).consoles
            assert [(console.vm, console.unit_address) for console in listed] == [("a", VTY), ("a", VTY + 1), ("b", VTY)]
            (console,) = (await consoles.ListConsoles(console_pb2.ListConsolesRequest(vm="b"))).consoles
            assert (console.output_bytes, console.readers, console.writer) == (5, 1, "alice")

            buses = vio_bus_pb2_grpc.VioBusServiceStub(channel)
            found = await buses.ListBuses(vio_bus_pb2.ListBusesRequest())
            assert [bus.vm for bus in found.buses] == ["a", "b"]
            devices = (await buses.DescribeBus(vio_bus_pb2.DescribeBusRequest(vm="b"))).devices
            assert [(device.kind, device.unit_address, device.interrupt_source) for device in devices] == [
                ("vty", VTY, 0x1100),
                ("nvram", VTY + 1, 0x1101),
            ]
            assert devices[0].node.path == "/vdevice/vty@71000000"
            with pytest.raises(grpc.aio.AioRpcError, match="no VM 'c'"):
                await buses.DescribeBus(vio_bus_pb2.DescribeBusRequest(vm="c"))

    run(scenario)


def test_calls_of_every_device_are_answered_through_the_stream() -> None:
    async def scenario(server: VioServer) -> None:
        async with Guest(server.address) as guest, Viewer(server.address) as viewer:
            await guest.reset()
            assert (await guest.call("H_PUT_TERM_CHAR", VTY, 17, 0, 0)).result == H.PARAMETER
            assert (await guest.call("H_REG_CRQ", VTY, 0, 4096)).result == H.PARAMETER
            assert list((await guest.call("display-character", ord("!"), returns=1)).returns) == [RtasStatus.SUCCESS]
            guest.ram[0x1000:0x1004] = b"data"
            assert list((await guest.call("nvram-store", 0, 0x1000, 4, returns=2)).returns) == [0, 4]
            reply = await guest.call("nvram-fetch", 0, 0x2000, 4, returns=2)
            assert (list(reply.returns), [(write.address, write.data) for write in reply.writes]) == ([0, 4], [(0x2000, b"data")])
            assert list((await guest.call("quiesce", returns=1)).returns) == [0]
            await viewer.opened()
            assert await viewer.output(1) == b"!"

    run(scenario)


def test_input_that_waits_interrupts_again_when_cpu_service_comes_back() -> None:
    async def scenario(server: VioServer) -> None:
        async with Viewer(server.address, writer=True, wait=duration(10)) as viewer:
            async with Guest(server.address) as guest:
                await viewer.opened()
                viewer.type(b"k")
                assert await guest.interrupts.get() == 0x1100
            async with Guest(server.address) as guest:
                assert await guest.interrupts.get() == 0x1100
                assert await guest.read(1) == b"k"

    run(scenario)


def test_devices_that_do_not_fit_end_the_attach_with_the_reason() -> None:
    async def scenario(server: VioServer) -> None:
        guest = Guest(server.address)
        for device in guest.hello.devices:
            device.unit_address = VTY
        with pytest.raises(grpc.aio.AioRpcError, match="both have unit address 0x71000000"):
            async with guest:
                pass

    run(scenario)
