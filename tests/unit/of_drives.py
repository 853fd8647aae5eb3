# SPDX-License-Identifier: GPL-2.0-or-later
"""A client program's machine with a v-scsi adapter: media in memory, served by SPLITVISOR_H_BLOCK as its contract says."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from of_client_service.volumes.source import Extent, MediumError, Source
from splitvisor.papr.block_access import CD_ROM, DISK, BlockOperation, BlockRequest, BlockUnit
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from splitvisor.tree import fdt
from tests.unit.of_machine import Client, cells, sample_tree

ADAPTER = 0x71000002
ADAPTER_PATH = f"/vdevice/v-scsi@{ADAPTER:x}"
SECTOR = 512
NVRAM_FETCH = 0x2017


def lun_of(target: int) -> int:
    return (0x8000 | target << 8) << 48


def disk_path(target: int) -> str:
    return f"{ADAPTER_PATH}/disk@{lun_of(target):x}"


@dataclass
class Drive:
    """A logical unit."""

    data: bytearray
    block_bytes: int = SECTOR
    kind: int = DISK
    has_medium: bool = True
    broken: range = range(0)
    """Bytes that cannot be read."""

    @property
    def unit(self) -> BlockUnit:
        return BlockUnit(self.block_bytes, len(self.data) // self.block_bytes, self.kind, 64 << 10, read_only=self.kind == CD_ROM)


@dataclass
class Drives:
    """The adapter's back end."""

    client: Client
    drives: dict[int, Drive]
    typed: bytes = b""
    nvram: bytes = b""
    requests: list[BlockRequest] = field(default_factory=list)

    def answer(self, token: int, arguments: Sequence[int]) -> tuple[int, Sequence[int]]:
        if token == Hcall.H_GET_TERM_CHAR:
            given, self.typed = self.typed[:16], self.typed[16:]
            return H.SUCCESS, (len(given), *struct.unpack(">QQ", given.ljust(16, b"\0")))
        if token == Hcall.H_RTAS:
            return self._fetch_nvram(arguments[0]), ()
        assert token == Hcall.SPLITVISOR_H_BLOCK
        return self._access(arguments)

    def _fetch_nvram(self, block: int) -> int:
        """What cpu_service answers itself."""
        ram = self.client.vm.ram.data
        token, arguments, returns, offset, address, length = struct.unpack_from(">6I", ram, block)
        assert (token, arguments, returns) == (NVRAM_FETCH, 3, 2)
        fits = offset + length <= len(self.nvram)
        ram[address : address + length * fits] = self.nvram[offset : offset + length * fits]
        struct.pack_into(">iI", ram, block + 24, 0 if fits else -3, length * fits)
        return H.SUCCESS

    def _access(self, arguments: Sequence[int]) -> tuple[int, Sequence[int]]:
        ram = self.client.vm.ram.data
        request = BlockRequest.parse(arguments, len(ram))
        assert request is not None, "of_client_service makes no call that cannot be"
        self.requests.append(request)
        drives = self.drives if request.unit_address == ADAPTER else {}
        if request.operation is BlockOperation.LIST and drives:
            data = b"".join(lun.to_bytes(8, "big") for lun in self.drives)[: request.length]
            ram[request.address : request.address + len(data)] = data
            return H.SUCCESS, (len(self.drives),)
        drive = drives.get(request.lun)
        if drive is None:
            return H.PARAMETER, ()
        if not drive.has_medium:
            return H.NOT_FOUND, ()
        if request.operation is BlockOperation.DESCRIBE:
            return H.SUCCESS, drive.unit.outputs()
        return self._move(drive, request, ram)

    def _move(self, drive: Drive, request: BlockRequest, ram: bytearray) -> tuple[int, Sequence[int]]:
        assert not request.offset % drive.block_bytes
        assert 0 < request.length <= drive.unit.max_transfer
        assert not request.length % drive.block_bytes
        end = min(request.offset + request.length, len(drive.data))
        length = end - request.offset
        if request.offset < drive.broken.stop and end > drive.broken.start:
            return H.HARDWARE, ()
        if request.operation is BlockOperation.READ:
            ram[request.address : request.address + length] = drive.data[request.offset : end]
        elif drive.unit.read_only:
            return H.PERMISSION, ()
        else:
            drive.data[request.offset : end] = ram[request.address : request.address + length]
        return H.SUCCESS, (length,)


def machine_with(*drives: Drive, boot: Sequence[str] = (), nvram: bytes = b"") -> tuple[Client, Drives]:
    """A machine that has drives as targets 1 and up. boot: the words of --boot. nvram: the contents of its NVRAM."""
    tree = sample_tree()
    bus, chosen = tree.root.child("vdevice"), tree.root.child("chosen")
    assert bus is not None
    assert chosen is not None
    for name in ("qemu,boot-kernel", "linux,initrd-start", "linux,initrd-end"):
        del chosen.properties[name]
    if boot:
        chosen.properties["splitvisor,boot"] = b"".join(word.encode() + b"\0" for word in boot)
    bus.children.append(fdt.Node(f"v-scsi@{ADAPTER:x}", {"device_type": b"vscsi\0", "reg": cells(ADAPTER)}))
    rtas = tree.root.child("rtas")
    if nvram and rtas is not None:
        rtas.properties["nvram-fetch"] = cells(NVRAM_FETCH)
        bus.children.append(fdt.Node("nvram@71000001", {"device_type": b"nvram\0", "#bytes": cells(len(nvram))}))
    client = Client(tree)
    served = Drives(client, {lun_of(number): drive for number, drive in enumerate(drives, 1)}, nvram=nvram)
    client.vm.answer = served.answer
    return client, served


class BytesSource(Source):
    """A medium in memory that counts what is read of it."""

    def __init__(self, data: bytes, block_bytes: int = SECTOR, broken: range = range(0)) -> None:
        self.data, self.size, self.block_bytes, self.broken = data, len(data), block_bytes, broken
        self.bytes_read = 0

    async def read(self, offset: int, length: int) -> bytes:
        self.check(offset, length)
        self.bytes_read += length
        if offset < self.broken.stop and offset + length > self.broken.start:
            raise MediumError(f"cannot be read at byte {offset}")
        return self.data[offset : offset + length]

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        yield Extent(offset, length)


def read_all(source: Source) -> bytes:
    return asyncio.run(source.read(0, source.size))
