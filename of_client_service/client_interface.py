# SPDX-License-Identifier: GPL-2.0-or-later
"""The state behind the client services of one machine, and the form in which a service is declared."""

from __future__ import annotations

import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from of_client_service.claims import Claims
from of_client_service.device_path import resolve
from of_client_service.device_tree import DeviceTree, Package
from of_client_service.disks.units import LogicalUnit, add_nodes, find_units
from of_client_service.instances import Instance, Instances
from of_client_service.network.devices import NetworkDevice, add_aliases, find_networks, has_network
from of_client_service.terminal import TerminalInstance
from of_client_service.tree_store import TreeStore, TreeStoreError
from splitvisor.backend import Call, Support, Vm
from splitvisor.rpc import device_tree_pb2 as dt
from splitvisor.tree import fdt

FAILED = -1
"""What most services return when they cannot do what was asked (IEEE 1275 6.3.2)."""
FIRMWARE_BYTES = 0x10000
"""Memory from address 0 that the firmware image and its stack use."""
MAX_PATH = 256
MAX_NAME = 64

log = structlog.get_logger()


@dataclass
class ClientCall:
    """One call of a client program."""

    arguments: Sequence[int]
    """Cells, unsigned 32 bit."""
    returns: int
    """Return cells that the client has room for."""
    trap: Call


@dataclass(frozen=True)
class ClientService:
    """A client service: a row of the table that docs/openfirmware.md shows."""

    name: str
    function: Callable[[ClientInterface, ClientCall], int | Sequence[int] | Awaitable[int | Sequence[int]]]
    arguments: int | None
    """Cells that the client must pass; None: any number."""
    returns: int | None
    """Cells that the service returns; None: it depends. A client with less room gets the first ones."""
    section: str
    support: Support = Support.FULL
    note: str = ""


@dataclass(frozen=True)
class BootRequest:
    """What a client asked to boot next; it outlives the reset that it causes."""

    path: str
    arguments: str


@dataclass(frozen=True)
class StartedProgram:
    """Where a program that was booted starts."""

    entry: int
    toc: int
    """r2 at the entry."""
    initrd: tuple[int, int] = (0, 0)
    """Address and bytes of an initial RAM disk; no bytes: there is none."""


class BootSteps(Protocol):
    """A boot from a device that is under way."""

    async def step(self, call: Call) -> StartedProgram | None:
        """Do something. Returns the program to start; None: call again."""


class ClientInterface:
    """Open Firmware's state between two resets: the tree, open instances and claimed memory.

    Args:
        vm: the machine.
        store: where its tree is.
    """

    def __init__(self, vm: Vm, store: TreeStore) -> None:
        self.vm = vm
        self.boot_request: BootRequest | None = None
        self.requested: BootRequest | None = None
        """What was asked to boot before the last reset."""
        self._store = store
        self._restart(fdt.Tree(fdt.Node("")), 0)

    def _restart(self, tree: fdt.Tree, revision: int) -> None:
        self.tree = DeviceTree(tree)
        self._revision = revision
        self.instances = Instances()
        self.claims = Claims(self.vm.memory.size)
        self.started = time.monotonic()
        self._units: tuple[LogicalUnit, ...] | None = None
        self.boot: BootSteps | None = None
        """A boot that has begun. A snapshot is without it: the firmware asks again, and it begins anew."""

    async def reset(self) -> None:
        """Read the machine's tree and start afresh. Raises TreeStoreError or fdt.FdtError."""
        stored = await self._store.head(self.vm.name)
        tree = fdt.read(stored.blob)
        add_nodes(tree)
        if has_network(tree) and tree.root.child("aliases") is None:
            tree.root.children.append(fdt.Node("aliases"))
        self._restart(tree, stored.revision)
        add_aliases(self.tree)
        self._claim_boot_images()
        self._open_console()
        self.requested, self.boot_request = self.boot_request, None
        if self.requested is not None:
            self.say_booted(self.requested.path, self.requested.arguments)

    def say_booted(self, path: str, arguments: str | None = None) -> None:
        """Tell the client which device it comes from, and its command line; None: the machine's."""
        properties = self.chosen.node.properties
        properties["bootpath"] = path.encode("latin-1") + b"\0"
        if arguments is not None:
            properties["bootargs"] = arguments.encode("latin-1") + b"\0"

    async def units(self) -> tuple[LogicalUnit, ...]:
        """Return the disks and CD-ROM drives as they were when first asked for. Only inside a handler."""
        return await self.find_units() if self._units is None else self._units

    async def find_units(self) -> tuple[LogicalUnit, ...]:
        """Look for disks and CD-ROM drives, and write their aliases. Only inside a handler."""
        self._units = await find_units(self.vm, self.tree)
        return self._units

    def networks(self) -> tuple[NetworkDevice, ...]:
        """Return the network devices."""
        return find_networks(self.tree)

    async def go_on_from_head(self) -> None:
        """Take what is the head now for the tree that ours came from: the store was restored before. Raises TreeStoreError."""
        self._revision = (await self._store.head(self.vm.name)).revision

    @property
    def chosen(self) -> Package:
        """The /chosen package; the root when a tree has none."""
        found = resolve(self.tree.root, "/chosen")
        return self.tree.root if found is None else found.package

    def _claim_boot_images(self) -> None:
        chosen = self.chosen
        self.claims.reserve(0, FIRMWARE_BYTES)
        kernel = chosen.get("qemu,boot-kernel") or b""
        if len(kernel) == 16:
            self.claims.reserve(*struct.unpack(">QQ", kernel))
        start, end = (int.from_bytes(chosen.get(f"linux,initrd-{edge}") or b"", "big") for edge in ("start", "end"))
        if start < end:
            self.claims.reserve(start, end - start)
        self.publish_available()

    def publish_available(self) -> None:
        """Write what is free to the "available" property of /memory, as IEEE 1275 wants it."""
        memory = resolve(self.tree.root, "/memory")
        if memory is None:
            return
        widths = [self.tree.root.number(f"#{kind}-cells") or default for kind, default in (("address", 2), ("size", 1))]
        memory.package.node.properties["available"] = b"".join(
            (value & ((1 << 32 * width) - 1)).to_bytes(4 * width, "big")
            for free in self.claims.available()
            for value, width in zip(free, widths, strict=True)
        )

    def _open_console(self) -> None:
        console = self._console()
        unit = None if console is None else console.number("reg")
        if console is None or unit is None:
            return
        for name in ("stdin", "stdout"):
            ihandle = self.instances.add(TerminalInstance(console, console.path, unit))
            if ihandle is not None:
                self.chosen.node.properties[name] = ihandle.to_bytes(4, "big")

    def _console(self) -> Package | None:
        """The VTY that stdout-path names, else the one with the lowest unit address."""
        for name in ("stdout-path", "linux,stdout-path"):
            chosen = resolve(self.tree.root, self.chosen.text(name))
            if chosen is not None and chosen.package.text("device_type") == "serial":
                return chosen.package
        bus = resolve(self.tree.root, "/vdevice")
        terminals = [child for child in bus.package.children if child.text("device_type") == "serial"] if bus else []
        return min(terminals, key=lambda package: package.number("reg") or 0, default=None)

    def console(self, name: str) -> TerminalInstance | None:
        """The terminal that is open as stdin or stdout."""
        instance = self.instances.get(self.chosen.number(name) or 0)
        return instance if isinstance(instance, TerminalInstance) else None

    def say(self, call: Call, *lines: str) -> None:
        """Print lines of the firmware's own on the console."""
        stdout = self.console("stdout")
        if stdout is not None:
            stdout.put(call, "".join(f"\r\n{line}" for line in (*lines, "")).encode("ascii", "replace"))

    def instance(self, ihandle: int) -> Instance | None:
        """The instance of an ihandle."""
        return self.instances.get(ihandle)

    async def string(self, address: int, limit: int) -> str:
        """A guest's string of less than limit bytes. Raises GuestAddressError, or ValueError when it is longer."""
        return (await self.vm.memory.read_string(address, limit)).decode("latin-1")

    async def give(self, buffer: int, data: bytes) -> None:
        """Store a result in a client's buffer. Without room for any of it, the buffer may be anywhere, as with VOF and SLOF.

        Raises GuestAddressError.
        """
        if data:
            await self.vm.memory.write(buffer, data)

    async def take(self, buffer: int, length: int) -> bytes:
        """Return what is in a client's buffer; the same holds for one of no bytes. Raises GuestAddressError."""
        return await self.vm.memory.read(buffer, length) if length else b""

    async def store_tree(self, origin: dt.TreeOrigin) -> None:
        """Put the tree into the store. A failure is logged only: the guest has the tree that it sees."""
        try:
            self._revision = await self._store.put(self.vm.name, origin, self.tree.blob(), self._revision)
        except (TreeStoreError, fdt.FdtError) as error:
            log.error("the tree could not be stored", vm=self.vm.name, origin=dt.TreeOrigin.Name(origin), reason=str(error))

    async def revise_stored_tree(self, change: Callable[[fdt.Node], None], origin: dt.TreeOrigin, room: int) -> bytes | None:
        """Change the head of the store itself, from its root, and return the new blob.

        None, and no change, when that would have more than room bytes. Raises TreeStoreError or fdt.FdtError.
        """
        stored = await self._store.head(self.vm.name)
        tree = fdt.read(stored.blob)
        change(tree.root)
        blob = fdt.emit(tree)
        if len(blob) > room:
            return None
        self._revision = await self._store.put(self.vm.name, origin, blob, stored.revision)
        return blob
