# SPDX-License-Identifier: GPL-2.0-or-later
"""Booting from a network: DHCP, TFTP, a program and its RAM disk; what is wrong is one line; and an opened network device."""

from __future__ import annotations

import asyncio
import random
import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from of_client_service.boot.network import NetworkArguments
from of_client_service.network import dhcp, tftp
from of_client_service.network.packets import Datagram
from of_client_service.session import ClientInterfaceSession
from splitvisor.papr.codes import H
from splitvisor.papr.frame_access import FrameOperation, FrameRequest
from splitvisor.papr.hcall import Hcall
from splitvisor.tree import fdt
from tests.unit.network_peer import CLIENT, MAC, SERVER, Answer, Peer, TftpServer, dhcp_reply, reply
from tests.unit.of_machine import BUFFER, KERNEL, RAM_BYTES, Client, cells, sample_tree
from tests.unit.test_boot_process import Booted, boot, elf32

UNIT = 0x7100_0003
PATH = f"/vdevice/l-lan@{UNIT:x}"
NAME = f"net ({PATH})"


@dataclass
class Lan:
    """The device's back end, and the servers on its wire."""

    client: Client
    files: TftpServer
    file: bytes = b"grub/core.elf"
    next_server: str = "192.0.2.1"
    answers_dhcp: bool = True
    in_use: bool = False
    result: int = H.SUCCESS
    arriving: deque[bytes] = field(default_factory=deque)
    closed: int = 0
    peer: Peer = field(init=False)

    def __post_init__(self) -> None:
        self.peer = Peer(self._serve)

    def _serve(self, datagram: Datagram) -> Answer:
        if datagram.port != 67:
            return self.files(datagram)
        if not self.answers_dhcp:
            return []
        kind = datagram.payload[datagram.payload.index(b"\x35\1") + 2]
        options = [(1, b"\xff\xff\xff\0"), (54, SERVER.packed)]
        message = dhcp_reply(datagram.payload, kind + 1 + (kind == 3), options, file=self.file, next_server=self.next_server)
        return [reply(datagram, message, source=SERVER)]

    def answer(self, token: int, arguments: Sequence[int]) -> tuple[int, Sequence[int]]:
        if token != Hcall.SPLITVISOR_H_FRAME:
            return H.SUCCESS, (0, 0, 0)
        ram = self.client.vm.ram.data
        request = FrameRequest.parse(arguments, len(ram))
        assert request is not None, "of_client_service makes no call that cannot be"
        assert request.unit_address == UNIT
        if request.operation is FrameOperation.CLOSE:
            self.arriving.clear()
            self.closed += 1
            return H.SUCCESS, ()
        if self.in_use or self.result != H.SUCCESS:
            return self.result if self.result != H.SUCCESS else H.RESOURCE, ()
        if request.length:
            self.arriving += self.peer.frames(bytes(ram[request.address : request.address + request.length]))
        if not request.room or not self.arriving:
            return H.SUCCESS, (0,)
        frame = self.arriving.popleft()
        ram[request.buffer : request.buffer + len(frame)] = frame
        return H.SUCCESS, (len(frame),)


def machine(files: dict[str, bytes], *, boot: Sequence[str] = ("net",), bootargs: bytes = b"quiet\0") -> tuple[Client, Lan]:
    tree = sample_tree()
    bus, chosen = tree.root.child("vdevice"), tree.root.child("chosen")
    assert bus is not None
    assert chosen is not None
    for name in ("qemu,boot-kernel", "linux,initrd-start", "linux,initrd-end"):
        del chosen.properties[name]
    chosen.properties |= {"splitvisor,boot": b"".join(word.encode() + b"\0" for word in boot), "bootargs": bootargs}
    properties = {"device_type": b"network\0", "reg": cells(UNIT), "local-mac-address": MAC}
    bus.children.append(fdt.Node(f"l-lan@{UNIT:x}", properties))
    client = Client(tree)
    lan = Lan(client, TftpServer(files))
    client.vm.answer = lan.answer
    return client, lan


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real time passes here, so there is less of it to wait."""
    monkeypatch.setattr(dhcp, "DISCOVER_WAITS_S", (0.02, 0.02))
    monkeypatch.setattr(dhcp, "REQUEST_WAITS_S", (0.02,))
    monkeypatch.setattr(tftp, "WAITS_S", (0.02, 0.02))
    monkeypatch.setattr("of_client_service.network.host.ARP_WAITS_S", (0.02,))


def lines(client: Client) -> Booted:
    return boot(client, 100)


def test_a_program_is_in_ram_and_chosen_says_where_from() -> None:
    code = random.Random(7).randbytes(200_001)
    client, lan = machine({"grub/core.elf": elf32(data=code)})
    client.poke(0x20_0000, b"\xff" * 300_000)
    booted = lines(client)
    assert (booted.entry, booted.toc, booted.actions) == (0x20_0000, 0, [])
    assert client.peek(0x20_0000, len(code) + 5000) == code + bytes(5000)
    assert booted.lines == [
        f"boot: {NAME}: 192.0.2.9 by DHCP, grub/core.elf from 192.0.2.1",
        f"boot: grub/core.elf from 192.0.2.1 of {NAME}",
    ]
    assert client.read_property("/chosen", "bootpath") == f"{PATH}:192.0.2.1,grub\\core.elf\0".encode()
    assert client.read_property("/chosen", "bootargs") == b"quiet\0"
    response = client.read_property("/chosen", "bootp-response")
    assert response == client.read_property("/chosen", "dhcp-response")
    assert (response[16:20], response[20:24], response[28:34]) == (CLIENT.packed, SERVER.packed, MAC)
    assert response[108:236].rstrip(b"\0") == b"grub/core.elf"
    assert client.read_property("/aliases", "net") == PATH.encode() + b"\0"
    assert client.of.claims.is_free(0x20_0000, 4) is False
    assert lan.closed == 1


def test_what_siaddr_does_not_say_it_says_in_chosen() -> None:
    client, _ = machine({"grub/core.elf": elf32()})
    client.vm.answer.__self__.next_server = "0.0.0.0"  # type: ignore[attr-defined]
    assert lines(client).entry == 0x20_0000
    assert client.read_property("/chosen", "dhcp-response")[20:24] == SERVER.packed


@pytest.mark.parametrize(("name", "read"), [("initrd.img", "grub/initrd.img"), ("/other/initrd.img", "/other/initrd.img")])
@pytest.mark.parametrize("options", [True, False])
def test_a_ram_disk_that_the_command_line_names_is_behind_the_program(name: str, read: str, options: bool) -> None:
    content = random.Random(8).randbytes(150_000)
    client, lan = machine({"grub/core.elf": elf32(), read: content}, bootargs=f"quiet initrd={name} ro\0".encode())
    lan.files.with_options = options
    for _ in range(100):
        entry, _, start, length = client.call_all("splitvisor,boot", returns=4)
        if entry:
            break
    assert (entry, length) == (0x20_0000, len(content))
    assert client.peek(start, length) == content
    assert start > 0x20_0000
    assert not client.of.claims.is_free(start, length)
    edges = [client.read_property("/chosen", f"linux,initrd-{edge}") for edge in ("start", "end")]
    assert edges == [struct.pack(">Q", start), struct.pack(">Q", start + length)]


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (b"", "grub/core.elf is empty"),
        (b"#!ipxe\n" * 20_000, "grub/core.elf is "),
        (elf32()[:1000], "grub/core.elf ends within the segment for 0x200000"),
        (elf32(entry=4), "its entry point 0x4 is not an instruction that it loads"),
        (elf32(bss=64 << 20), "grub/core.elf needs 0x4000640 bytes at 0x200000; RAM ends at 0x1000000"),
    ],
)
@pytest.mark.parametrize("options", [True, False])
def test_a_file_that_is_no_program_is_one_line(program: bytes, reason: str, options: bool) -> None:
    client, lan = machine({"grub/core.elf": program})
    lan.files.with_options = options
    before = client.of.claims.ranges()
    booted = lines(client)
    assert booted.entry == 0
    assert booted.lines[1].startswith(f"boot: {NAME}: ")
    assert reason in booted.lines[1]
    assert booted.lines[2:] == ["boot: there is nothing to boot"]
    assert booted.actions[0].reason == f"there is nothing to boot: {booted.lines[1].removeprefix('boot: ')}"
    assert client.of.claims.ranges() == before


def test_a_file_that_is_larger_than_ram_is_one_line_before_it_is_read() -> None:
    client, lan = machine({"grub/core.elf": bytes(RAM_BYTES + 1)})
    assert f"grub/core.elf is too large: {RAM_BYTES + 1} bytes; {RAM_BYTES} is the most" in lines(client).lines[1]
    assert lan.files.sent == 0


def test_a_ram_disk_without_room_is_one_line() -> None:
    client, _ = machine({"grub/core.elf": elf32(), "grub/i": bytes(15 << 20)}, bootargs=b"initrd=i\0")
    assert "grub/i has 15728640 bytes; there is free memory for 1" in lines(client).lines[2]


def test_what_a_network_does_not_do_is_one_line() -> None:
    def reason(client: Client) -> str:
        line = lines(client).lines[-2]
        assert line.startswith(f"boot: {NAME}: ")
        return line.removeprefix(f"boot: {NAME}: ")

    client, lan = machine({})
    lan.answers_dhcp = False
    assert reason(client) == "no answer to DHCP (2 requests in 0 s)"
    client, lan = machine({})
    assert reason(client) == "server 192.0.2.1 has no file grub/core.elf"
    client, lan = machine({})
    lan.file = b""
    assert reason(client) == "DHCP server 192.0.2.1 names no file to boot from"
    client, lan = machine({"grub/core.elf": elf32(data=bytes(50_000))})
    lan.files.silent_after = 10
    assert reason(client) == "server 192.0.2.1 is silent for 0 s, after 14280 of 50256 bytes of grub/core.elf"
    assert lan.files.errors == [b"\0\5\0\0given up\0"]
    client, lan = machine({})
    lan.peer.answers_arp = False
    assert reason(client) == "server 192.0.2.1 does not answer ARP"
    client, lan = machine({})
    lan.in_use = True
    assert reason(client) == "is in use by the operating system's driver"
    client, lan = machine({})
    lan.result = H.PARAMETER
    assert reason(client) == "cannot be used by the firmware (its back end answers H_PARAMETER)"


def test_a_machine_without_a_network_is_one_line() -> None:
    tree = sample_tree()
    chosen = tree.root.child("chosen")
    assert chosen is not None
    chosen.properties["splitvisor,boot"] = b"net\0"
    booted = boot(Client(tree))
    assert "no disk, CD-ROM drive or network device that --boot names" in booted.actions[0].reason


def test_what_a_client_asks_to_boot_may_name_server_and_file() -> None:
    client, lan = machine({"grub/core.elf": elf32(), "other.elf": elf32(entry=0x20_0004)})
    client.call_all("boot", "net:dhcp,192.0.2.1,other.elf", returns=0)
    asyncio.run(client.session.reset())
    assert lines(client).entry == 0x20_0004
    client.call_all("boot", "net:192.0.2.1,other.elf,192.0.2.77", returns=0)
    asyncio.run(client.session.reset())
    booted = lines(client)
    assert f"boot: {NAME}: takes no arguments but a server and a file, not '192.0.2.1,other.elf,192.0.2.77'" in booted.lines
    assert lan.files.sent > 0


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("", NetworkArguments()),
        ("dhcp", NetworkArguments()),
        (",a\\b", NetworkArguments(file="a/b")),
        ("0.0.0.0,f,,", NetworkArguments(file="f")),
        ("bootp,192.0.2.1", NetworkArguments(SERVER)),
        ("server,f", None),
        ("ipv6,::1", None),
        ("192.0.2.1,f,192.0.2.2", None),
    ],
)
def test_arguments_are_those_of_obp_tftp(text: str, arguments: NetworkArguments | None) -> None:
    assert NetworkArguments.parse(text) == arguments


def test_the_menu_has_networks() -> None:
    client, _ = machine({"grub/core.elf": elf32()}, boot=("menu",))
    booted = boot(client, 3)
    assert f"  1  net         network  {PATH}" in booted.lines


SUFFIX = ":speed=auto,duplex=auto,1.1.1.1,dummy,1.1.1.1,1.1.1.1,5,5,1.1.1.1,512"
"""What GRUB's driver opens a network device with."""


def test_a_client_opens_the_device_and_has_its_frames() -> None:
    client, lan = machine({})
    assert client.find(PATH + SUFFIX) == client.find(PATH)
    ihandle = client.call("open", PATH + SUFFIX)
    assert ihandle > 0
    assert client.call("read", ihandle, BUFFER, 1536) == -2
    frames = [random.Random(size).randbytes(size) for size in (60, 1514)]
    lan.arriving.extend(frames)
    for frame in frames:
        assert client.call("read", ihandle, BUFFER, 1792) == len(frame)
        assert client.peek(BUFFER, len(frame)) == frame
    request = arp_question()
    client.poke(BUFFER, request)
    assert client.call("write", ihandle, BUFFER, len(request)) == len(request)
    assert client.call("read", ihandle, BUFFER, 1792) == 42
    assert client.call_all("call-method", "read", ihandle, 1792, BUFFER, returns=2) == (0, -2)
    for length in (0, 13, 1519, 1 << 31):
        assert client.call("write", ihandle, BUFFER, length) == -1
    assert client.call("read", ihandle, 0x7FFF_0000, 1792) == -1
    assert client.call("seek", ihandle, 0, 0) == -1
    lan.in_use = True
    assert client.call("read", ihandle, BUFFER, 1792) == -1
    assert client.call("write", ihandle, BUFFER, 60) == -1
    client.call_all("close", ihandle, returns=0)
    [effect] = client.last.effects
    assert (effect.invoke.token, list(effect.invoke.arguments[:2])) == (Hcall.SPLITVISOR_H_FRAME, [UNIT, FrameOperation.CLOSE])
    assert client.call("read", ihandle, BUFFER, 1792) == -1


def arp_question() -> bytes:
    """A question of ARP as GRUB sends it."""
    body = struct.pack(">HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, MAC, CLIENT.packed, bytes(6), SERVER.packed)
    return b"\xff" * 6 + MAC + b"\x08\x06" + body


def test_an_opened_device_is_in_a_snapshot() -> None:
    client, lan = machine({})
    ihandle = client.call("open", "net")
    state = asyncio.run(client.session.save())
    restored = ClientInterfaceSession(client.vm, client.store)
    asyncio.run(restored.restore(state))
    client.session, client.of = restored, restored.interface
    lan.arriving.append(bytes(60))
    assert client.call("read", ihandle, BUFFER, 1792) == 60


assert KERNEL < RAM_BYTES
