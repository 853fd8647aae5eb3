# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine for tests of the client interface: a small tree, memory, and a client that calls services as a guest does."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field

from of_client_service.session import ClientInterfaceSession
from of_client_service.tree_store import StoredTree, TreeStoreError
from splitvisor.backend import Call
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from splitvisor.rpc import device_tree_pb2 as dt
from splitvisor.tree import fdt
from tests.fake_vm import FakeVm

RAM_BYTES = 16 << 20
KERNEL, KERNEL_BYTES = 0x400000, 0x200000
INITRD, INITRD_END = 0x700000, 0x740000
ARRAY, STRINGS, BUFFER = 0x20000, 0x21000, 0x30000
"""Where the client keeps its argument array, its strings, and data."""
FIRST_VTY, SECOND_VTY = 0x71000000, 0x71000001


def cells(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def sample_tree() -> fdt.Tree:
    """A pseries machine with two CPUs and two terminals, the second of which comes first in the tree."""
    cpus = [
        fdt.Node(f"PowerPC,POWER8@{index}", {"device_type": b"cpu\0", "reg": cells(index), "cpu-version": cells(0x4D0200)})
        for index in range(2)
    ]
    terminals = [
        fdt.Node(f"vty@{unit:x}", {"device_type": b"serial\0", "compatible": b"hvterm1\0", "reg": cells(unit)})
        for unit in (SECOND_VTY, FIRST_VTY)
    ]
    chosen = {
        "bootargs": b"quiet\0",
        "qemu,boot-kernel": struct.pack(">QQ", KERNEL, KERNEL_BYTES),
        "linux,initrd-start": struct.pack(">Q", INITRD),
        "linux,initrd-end": struct.pack(">Q", INITRD_END),
    }
    return fdt.Tree(
        fdt.Node(
            "",
            {"#address-cells": cells(2), "#size-cells": cells(2), "device_type": b"chrp\0", "model": b"test\0"},
            [
                fdt.Node("aliases", {"console": b"/vdevice/vty@71000000\0"}),
                fdt.Node("chosen", chosen),
                fdt.Node("cpus", {"#address-cells": cells(1), "#size-cells": cells(0)}, cpus),
                fdt.Node("memory@0", {"device_type": b"memory\0", "reg": struct.pack(">QQ", 0, RAM_BYTES)}),
                fdt.Node("rtas", {"rtas-size": cells(2092), "power-off": cells(0x2003)}),
                fdt.Node("interrupt-controller", {"phandle": cells(0x1111)}),
                fdt.Node("vdevice", {"#address-cells": cells(1), "#size-cells": cells(0)}, terminals),
            ],
        )
    )


@dataclass
class ListedTrees:
    """A tree store in a list."""

    revisions: list[tuple[int, bytes]] = field(default_factory=list)
    """(origin, blob)."""

    async def head(self, vm: str) -> StoredTree:
        if not self.revisions:
            raise TreeStoreError("there is no tree")
        return StoredTree(len(self.revisions), self.revisions[-1][1])

    async def put(self, vm: str, origin: dt.TreeOrigin, blob: bytes, replaces: int) -> int:
        assert replaces == len(self.revisions)
        self.revisions.append((origin, blob))
        return len(self.revisions)


class Client:
    """A client program: stores an argument array in guest memory, makes the hypercall, reads the returns."""

    def __init__(self, tree: fdt.Tree | None = None) -> None:
        self.vm = FakeVm(size=RAM_BYTES)
        self.store = ListedTrees([(dt.TREE_ORIGIN_SEED, fdt.emit(tree or sample_tree()))])
        self.session = ClientInterfaceSession(self.vm, self.store)
        self.of = self.session.interface
        asyncio.run(self.session.reset())
        self.last = Call(0, ())

    def poke(self, address: int, data: bytes) -> int:
        """Store data; return its address."""
        self.vm.ram.data[address : address + len(data)] = data
        return address

    def peek(self, address: int, length: int) -> bytes:
        return bytes(self.vm.ram.data[address : address + length])

    def trap(self, array: int) -> int:
        """Make the hypercall; return r3."""
        self.last = Call(vcpu=0, arguments=(array,))
        return asyncio.run(self.session.call_client_interface(self.last))

    def call_all(self, service: str, *arguments: int | str, returns: int = 1) -> tuple[int, ...]:
        """Call a service with numbers and strings; return every return cell, as signed numbers."""
        free = STRINGS
        words = []
        for argument in (service, *arguments):
            if isinstance(argument, str):
                words.append(self.poke(free, argument.encode() + b"\0"))
                free += len(argument) + 1
            else:
                words.append(argument & 0xFFFF_FFFF)
        array = self.poke(ARRAY, cells(words[0], len(arguments), returns, *words[1:], *(0xEEEE_EEEE,) * returns))
        result = self.trap(array)
        assert result in (H.SUCCESS, H.PARAMETER)
        return struct.unpack(f">{returns}i", self.peek(array + 12 + 4 * len(arguments), 4 * returns))

    def call(self, service: str, *arguments: int | str) -> int:
        """Call a service; return its first return cell, signed."""
        return self.call_all(service, *arguments)[0]

    def find(self, path: str) -> int:
        return self.call("finddevice", path)

    def read_property(self, path: str, name: str) -> bytes:
        length = self.call("getprop", self.find(path), name, BUFFER, 0x8000)
        assert length >= 0, f"{path} has no {name}"
        return self.peek(BUFFER, length)

    @property
    def printed(self) -> bytes:
        """What the last call put on terminals."""
        text = b""
        for effect in self.last.effects:
            if effect.HasField("invoke"):
                assert effect.invoke.token == Hcall.H_PUT_TERM_CHAR
                _, length, first, second = effect.invoke.arguments
                text += struct.pack(">QQ", first, second)[:length]
        return text
