# SPDX-License-Identifier: GPL-2.0-or-later
"""Booting from a network: an address and a file's name by DHCP, the file by TFTP, and an initial RAM disk by its side.

A device specifier may say what to read, as that of IEEE 1275's obp-tftp package does: "net:SERVER,FILE", both optional, after
"dhcp" or "bootp", which is what is done anyway. The command line may name an initial RAM disk: "initrd=FILE", beside the program
unless its name begins with a slash.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from ipaddress import IPv4Address

from of_client_service.boot.arriving import ArrivingInitrd, ArrivingProgram
from of_client_service.boot.attempt import Booted, NotBootedError
from of_client_service.client_interface import ClientInterface, StartedProgram
from of_client_service.network.conversation import Conversation
from of_client_service.network.devices import NetworkDevice
from of_client_service.network.dhcp import obtain
from of_client_service.network.dhcp_message import Reply
from of_client_service.network.exchange import Exchange, NetworkError, shown
from of_client_service.network.host import Host
from of_client_service.network.port import FramePort
from of_client_service.network.tftp import Sink, fetch
from of_client_service.volumes.source import VolumeError
from splitvisor.backend import Call
from splitvisor.declarations.guest_memory import GuestAddressError

STEP_SECONDS = 0.5
"""After which a step ends, for the guest's other work."""
_INITRD = re.compile(r"(?:^|\s)initrd=(\S+)")
_PROTOCOLS = ("dhcp", "bootp")


@dataclass(frozen=True)
class NetworkArguments:
    """The arguments of a network device's path."""

    server: IPv4Address | None = None
    """None: whom DHCP names."""
    file: str = ""
    """Empty: what DHCP names."""

    @classmethod
    def parse(cls, text: str) -> NetworkArguments | None:
        """Take them apart; None when they ask for what there is not, such as an address without DHCP."""
        words = [word.strip() for word in text.split(",")]
        if words[0] in _PROTOCOLS:
            del words[0]
        server, file, *rest = [*words, "", ""]
        if any(rest):
            return None
        try:
            address = IPv4Address(server) if server else None
        except ValueError:
            return None
        return cls(address if address != IPv4Address(0) else None, file.replace("\\", "/"))


@dataclass(frozen=True)
class _Source:
    """What is read from where."""

    reply: Reply
    server: IPv4Address
    file: str


class NetworkAttempt:
    """The boot from a network device; see Attempt.

    Args:
        of: the machine's client interface.
        device: the network device.
        arguments: what a device specifier says of it; empty: nothing.
    """

    def __init__(self, of: ClientInterface, device: NetworkDevice, arguments: str) -> None:
        self._of, self._device, self._arguments = of, device, arguments
        self._port = FramePort(of.vm, device.unit)
        self._host = Host(device.mac, time.monotonic)
        self._program = ArrivingProgram(of.vm, of.claims, of.vm.memory.size)
        self._initrd: ArrivingInitrd | None = None
        self._conversation = Conversation(self._host, self._port, self._everything())
        self._notes: list[str] = []
        """Lines for the console."""
        self._is_over = False

    async def step(self, call: Call) -> Booted | None:
        """See Attempt."""
        until = time.monotonic() + STEP_SECONDS
        try:
            try:
                booted = await self._go_on(until)
            finally:
                if self._notes:
                    self._of.say(call, *self._notes)
                    self._notes.clear()
            if booted is not None:
                await self._port.close()
            return booted
        except (NetworkError, VolumeError, GuestAddressError) as error:
            await self._port.close()
            raise NotBootedError(str(error)) from error

    async def _go_on(self, until: float) -> Booted | None:
        while time.monotonic() < until:
            settled = await self._settle(until)
            if settled and self._is_over:
                return await self._booted(self._conversation.result)
            if settled:
                self._is_over = await self._conversation.round(until)
        return None

    async def _settle(self, until: float) -> bool:
        """Write what has arrived. Returns whether all is written."""
        arriving = self._program if self._initrd is None else self._initrd
        return await arriving.settle(lambda: time.monotonic() > until)

    def _everything(self) -> Exchange[_Source]:
        """Return, in the end, where the program is from."""
        arguments = NetworkArguments.parse(self._arguments)
        if arguments is None:
            raise NetworkError(f"takes no arguments but a server and a file, not {shown(self._arguments)!r}")
        reply = yield from obtain(self._host, needs_file=not arguments.file)
        server, file = arguments.server or reply.file_server, arguments.file or reply.file
        if server is None or not file:
            who = "the DHCP server" if reply.server is None else f"DHCP server {reply.server}"
            raise NetworkError(f"{who} names no {'server' if file else 'file'} to boot from")
        self._note(f"{self._host.address} by DHCP, {shown(file)} from {server}")
        yield from self._read(server, file, self._program)
        found = _INITRD.search(self._of.chosen.text("bootargs"))
        if found is not None:
            name = found[1] if found[1].startswith("/") else f"{file.rpartition('/')[0]}/{found[1]}".removeprefix("/")
            self._note(f"{shown(name)} from {server}")
            yield from self._settled()
            self._initrd = ArrivingInitrd(self._of.vm, self._of.claims, self._program.end)
            yield from self._read(server, name, self._initrd)
        return _Source(reply, server, file)

    def _settled(self) -> Exchange[None]:
        """Let what has arrived be written, without waiting for anybody."""
        yield self._host.clock()

    def _read(self, server: IPv4Address, name: str, sink: ArrivingProgram | ArrivingInitrd) -> Exchange[None]:
        taken: Sink = sink
        try:
            yield from fetch(self._host, server, name, taken, self._of.vm.memory.size)
            sink.finish()
        except VolumeError as error:
            raise VolumeError(f"{shown(name)} {error}") from error

    def _note(self, text: str) -> None:
        self._notes.append(f"boot: {self._device.name}: {text}")

    async def _booted(self, source: _Source) -> Booted:
        program = await self._program.start()
        chosen: dict[str, bytes] = {}
        if self._initrd is not None:
            self._initrd.claim()
            start, length = self._initrd.place
            program = StartedProgram(program.entry, program.toc, (start, length))
            edges = {"start": start, "end": start + length}
            chosen |= {f"linux,initrd-{edge}": value.to_bytes(8, "big") for edge, value in edges.items()}
        answer = source.reply.data_with(source.server)
        chosen |= dict.fromkeys(("bootp-response", "dhcp-response"), answer)
        return Booted(program, f"{shown(source.file)} from {source.server}", _specified(source), chosen=chosen)


def _specified(source: _Source) -> str:
    """Return the arguments that /chosen/bootpath has: server, and file unless its name has what means something there."""
    is_plain = not set(source.file) & set(",=:")
    return f"{source.server}," + (source.file.replace("/", "\\") if is_plain else "")
