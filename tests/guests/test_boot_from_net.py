# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine without a kernel boots programs from its network, by DHCP and TFTP; what is wrong is one line."""

from __future__ import annotations

import random
import shutil
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from of_client_service.network.packets import Arp, arp_frame, parse
from splitvisor import firmware
from tests.guests.conftest import Run
from tests.guests.harness import BOOT_SECONDS
from tests.unit.network_peer import PEER, SERVER, Answer, TftpServer, dhcp_reply, reply

LOAD_SECONDS = 200.0
"""TFTP sends one packet after the other, and each lost one costs a second."""
LOSSY_BYTES = 150_000
"""Of zeros behind a program, so that frames are lost with it."""
LOSS = 0.05


@pytest.fixture(name="directory")
def served(tmp_path: Path) -> Path:
    """A directory that libslirp serves."""
    if shutil.which("libslirp-helper") is None:
        pytest.skip("needs libslirp-helper")
    directory = tmp_path / "tftp"
    directory.mkdir()
    (directory / "demo.elf").write_bytes(firmware.DEMO)
    return directory


def user(directory: Path, file: str) -> tuple[str, str]:
    return "--net", f"user,tftp={directory},bootfile={file}"


@pytest.mark.parametrize("memory", [(), ("--no-shared-memory",)])
def test_a_program_is_booted_by_dhcp_and_tftp(run: Run, directory: Path, memory: tuple[str, ...]) -> None:
    console = run(*user(directory, "demo.elf"), "--boot", "net", *memory)
    console.expect(r"boot: net \(/vdevice/l-lan@[0-9a-f]+\): 10.0.2.15 by DHCP, demo.elf from 10.0.2.2", BOOT_SECONDS)
    console.expect(r"boot: demo.elf from 10.0.2.2 of net \(/vdevice/l-lan@[0-9a-f]+\)", BOOT_SECONDS)
    console.expect("Splitvisor's demo guest", BOOT_SECONDS)
    console.expect("> ")


def test_the_network_is_tried_when_no_disk_boots(run: Run, directory: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(bytes(1 << 20))
    console = run(*user(directory, "demo.elf"), "--disk", str(empty), "--boot", "disk,net")
    console.expect(r"boot: disk \(.*\) is tried first, then net\r", BOOT_SECONDS)
    console.expect(r"boot: disk \(.*\): has no partition table")
    console.expect("Splitvisor's demo guest", BOOT_SECONDS)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("nothing.elf", r"server 10\.0\.2\.2 has no file nothing.elf"),
        ("text", r"text is .*"),
        ("short.elf", r"short.elf ends within .*"),
        ("large", r"large is too large: 536870913 bytes; 536870912 is the most"),
    ],
)
def test_a_file_that_cannot_be_booted_ends_the_run_with_its_reason(run: Run, directory: Path, file: str, reason: str) -> None:
    (directory / "text").write_text("hello\n" * 1000)
    (directory / "short.elf").write_bytes(firmware.DEMO[:4000])
    with (directory / "large").open("wb") as large:
        large.truncate((512 << 20) + 1)
    console = run(*user(directory, file), "--boot", "net")
    console.expect(rf"boot: net \(.*\): {reason}\r", BOOT_SECONDS)
    console.expect("boot: there is nothing to boot")
    assert console.wait() == 3


def test_a_network_without_servers_ends_the_run_with_that_reason(run: Run) -> None:
    console = run("--net", "switch=nobody", "--boot", "net")
    console.expect(r"boot: net \(.*\): no answer to DHCP \(5 requests in \d\d s\)", BOOT_SECONDS)
    assert console.wait() == 3


class Network:
    """Servers at the other end of a stream, and a wire that loses frames."""

    def __init__(self, path: Path, files: TftpServer, name: bytes, loss: float) -> None:
        self.files, self._name, self._loss = files, name, loss
        self.lost = self.frames = 0
        self._dice = random.Random(3)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._connection is not None:  # The machine may go on.
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _serve(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        self._connection = connection
        with connection, connection.makefile("rb") as stream:
            while len(head := stream.read(4)) == 4:
                frame = stream.read(int.from_bytes(head, "big"))
                if self._is_lost():
                    continue
                for answer in self._answers(frame):
                    if not self._is_lost():
                        try:
                            connection.sendall(struct.pack(">I", len(answer)) + frame[6:12] + answer[6:])
                        except OSError:
                            return

    def _is_lost(self) -> bool:
        is_lost = self._dice.random() < self._loss
        self.lost += is_lost
        self.frames += 1
        return is_lost

    def _answers(self, frame: bytes) -> Answer:
        arrival = parse(frame)
        if isinstance(arrival, Arp):
            is_question = not arrival.is_reply and arrival.wanted == SERVER
            return [arp_frame(PEER, SERVER, arrival.mac, arrival.address, is_reply=True)] if is_question else []
        if arrival is None:
            return []
        if arrival.port != 67:
            return self.files(arrival)
        kind = arrival.payload[242]
        options = [(1, b"\xff\xff\xff\0"), (54, SERVER.packed)]
        message = dhcp_reply(arrival.payload, kind + 1 + (kind == 3), options, file=self._name, next_server=str(SERVER))
        return [reply(arrival, message, source=SERVER)]


@pytest.fixture(name="network")
def make_network(short_path: Path) -> Iterator[Callable[..., Network]]:
    made: list[Network] = []

    def make(files: TftpServer, name: bytes, loss: float = 0.0) -> Network:
        made.append(Network(short_path / "wire", files, name, loss))
        return made[-1]

    yield make
    for network in made:
        network.close()


def test_a_program_is_booted_though_one_frame_in_twenty_is_lost(
    run: Run, network: Callable[..., Network], short_path: Path
) -> None:
    program = firmware.DEMO + bytes(LOSSY_BYTES)  # What follows the program's segments is nobody's.
    lossy = network(TftpServer({"demo.elf": program}), b"demo.elf", LOSS)
    console = run("--net", f"socket=unix:{short_path}/wire", "--boot", "net")
    console.expect(r"boot: demo.elf from 192.0.2.1 of net", LOAD_SECONDS)
    console.expect("Splitvisor's demo guest", BOOT_SECONDS)
    assert lossy.frames > 2 * LOSSY_BYTES // 1500
    assert lossy.lost > 3


def test_a_server_that_falls_silent_ends_the_run_with_that_reason(
    run: Run, network: Callable[..., Network], short_path: Path
) -> None:
    network(TftpServer({"demo.elf": firmware.DEMO}, silent_after=3), b"demo.elf")
    console = run("--net", f"socket=unix:{short_path}/wire", "--boot", "net")
    console.expect(
        rf"boot: net \(.*\): server 192.0.2.1 is silent for 15 s, after 4284 of {len(firmware.DEMO)} bytes of demo.elf",
        BOOT_SECONDS,
    )
    assert console.wait() == 3
