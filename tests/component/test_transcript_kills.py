# SPDX-License-Identifier: GPL-2.0-or-later
"""vio_service is killed again and again while a machine prints: transcripts and readers have every byte once."""

from __future__ import annotations

import asyncio
import mmap
import random
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cpu_service.engine.ram import GuestRam
from cpu_service.link.backend_link import BackendLink
from splitvisor.papr.codes import H
from splitvisor.rpc import console_pb2 as pb
from splitvisor.rpc import trap_pb2
from splitvisor.terminal.link import ConsoleLink, TerminalEnd
from tests.component.trap_client import Events
from tests.services import Service

KILLS = 24
VTY = 0x71000000
RAM_BYTES = 1 << 20
DEADLINE_S = 120.0


class Machine:
    """cpu_service's end of the stream, the real one, with two vCPUs that print numbered lines on a terminal each."""

    def __init__(self, address: str) -> None:
        hello = trap_pb2.Hello(
            vm="vm",
            beginning=trap_pb2.BEGINNING_RUNNING,
            incarnation=7,
            vcpus=2,
            ram_bytes=RAM_BYTES,
            slots=trap_pb2.SlotRange(count=64),
        )
        hello.devices.extend(trap_pb2.DeviceSpec(kind="vty") for _ in range(2))
        self.link = BackendLink("vio_service", address, hello, GuestRam(mmap.mmap(-1, RAM_BYTES)), Events())
        self.link.begin()
        offer = self.link.wait_attached(DEADLINE_S)
        self._route = {route.name: index for index, route in enumerate(offer.routes)}["H_PUT_TERM_CHAR"]
        self.texts = (bytearray(), bytearray())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._print)
        self._thread.start()

    def _print(self) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            for vcpu in (0, 1):
                line = b"vcpu %d line %d\r\n" % (vcpu, number)
                for start in range(0, len(line), 16):
                    self._put(vcpu, line[start : start + 16], synchronous=number % 50 == 0)
                self.texts[vcpu].extend(line)
        for vcpu in (0, 1):
            self._put(vcpu, b"", synchronous=True)  # Answered after all that was posted.

    def _put(self, vcpu: int, block: bytes, *, synchronous: bool) -> None:
        arguments = (VTY + vcpu, len(block), *struct.unpack(">2Q", block.ljust(16, b"\0")))
        if synchronous:
            reply = self.link.trap(self._route, vcpu, arguments, 0, (), DEADLINE_S, lambda _: trap_pb2.InvokeResult())
            assert reply is not None
            assert reply.result == H.SUCCESS
            return
        while not self.link.post(self._route, vcpu, arguments, (), len(block)):
            self.link.wait_for_credit(DEADLINE_S)

    def stop_printing(self) -> None:
        self._stop.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()


class Reader:
    """A terminal that keeps what it was given."""

    def __init__(self, address: str, unit_address: int) -> None:
        self.notes: list[str] = []
        self.text = bytearray()
        opening = pb.ConsoleOpen(vm="vm", unit_address=unit_address, client_name="reader", replay=True)
        self.link = ConsoleLink(address, opening, wait_seconds=60, notify=self.notes.append)

    async def run(self) -> TerminalEnd:
        running = asyncio.create_task(self.link.run())
        while data := await self.link.read():
            self.text += data
        return await running


@pytest.fixture
def vio(short_path: Path) -> Iterator[Service]:
    service = Service("vio", short_path, "--transcripts", str(short_path / "log"), "--transcript-bytes", "300000",
                      "--transcript-files", "90")  # fmt: skip
    yield service
    service.end()


def transcript(directory: Path, unit_address: int) -> bytes:
    path = directory / f"vm-{unit_address:08x}.log"
    rotated = sorted(directory.glob(f"{path.name}.*"), key=lambda each: -int(each.suffix[1:]))
    return b"".join(each.read_bytes() for each in (*rotated, path))


def test_every_byte_is_there_once_however_often_the_service_is_killed(vio: Service, short_path: Path) -> None:
    chance = random.Random(4)

    async def scenario() -> tuple[list[Reader], Machine]:
        machine = await asyncio.to_thread(Machine, vio.address)
        readers = [Reader(vio.address, VTY), Reader(vio.address, VTY + 1)]
        reading = [asyncio.create_task(reader.run()) for reader in readers]
        await asyncio.gather(*(reader.link.opened.wait() for reader in readers))
        try:
            for _ in range(KILLS):
                # Once there is new output, at some moment of the next 30 ms: in a batch, a commit, between two.
                seen = len(readers[0].text)
                while len(readers[0].text) == seen:
                    await asyncio.sleep(0.001)
                await asyncio.sleep(chance.random() * 0.03)
                await asyncio.to_thread(vio.kill)
                await asyncio.to_thread(vio.start)
        finally:
            await asyncio.to_thread(machine.stop_printing)
        while any(len(reader.text) < len(text) for reader, text in zip(readers, machine.texts, strict=True)):
            await asyncio.sleep(0.01)  # A reader that is away when the VM ends has nowhere to come back to.
        await asyncio.to_thread(machine.link.close, "the end")
        assert await asyncio.gather(*reading) == [TerminalEnd.VM_ENDED] * 2
        return readers, machine

    async def in_time() -> tuple[list[Reader], Machine]:
        async with asyncio.timeout(DEADLINE_S):
            return await scenario()

    readers, machine = asyncio.run(in_time())
    for index, reader in enumerate(readers):
        said = bytes(machine.texts[index])
        assert transcript(short_path / "log", VTY + index) == said
        assert bytes(reader.text) == said
        assert reader.link.lost == 0
        assert {note.partition(":")[0] for note in reader.notes} == {"disconnected", "connected again"}
    assert machine.link.reconnects >= KILLS
