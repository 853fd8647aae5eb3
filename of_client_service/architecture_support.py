# SPDX-License-Identifier: GPL-2.0-or-later
"""ibm,client-architecture-support: the client says what it can do, the platform what it does (LoPAPR B.6.2.3, CAS).

The vector block that the client passes:

    pairs of 32-bit words (mask, PVR)       processors; the pair with a PVR bit outside its mask is the last one
    byte n - 1                              number of option vectors
    n times: byte L, then L + 1 bytes       option vectors 1 to n; bytes of a vector count from 1, bits from the most significant

The answer goes into the tree: cpu-version of every CPU, and option vector 5 as agreed, in /chosen. A client of ours
finds it there; a firmware of the guest's own (SLOF), which asks with H_CAS, gets the whole tree anew.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import structlog

from of_client_service.client_interface import ClientInterface
from of_client_service.tree_store import TreeStoreError
from splitvisor.backend import Vm
from splitvisor.declarations.guest_memory import LOGICAL_ADDRESS_MASK
from splitvisor.papr.codes import H
from splitvisor.papr.processor import PVR_POWER8
from splitvisor.rpc import device_tree_pb2 as dt
from splitvisor.tree import fdt

MAX_BLOCK_BYTES = 8192
"""Linux's block has 300 bytes."""
MAX_PAIRS = 512

ARCHITECTURE_2_07 = 0x0F00_0004
PROCESSORS = (ARCHITECTURE_2_07, PVR_POWER8)
"""What this platform can be, the preferred first: the architecture level lets a guest move to another kind of CPU."""

FORM1_AFFINITY = (5, 0x80)
AFFINITY_SUPPORTED = (FORM1_AFFINITY,)
INTERRUPT_MODE_BYTE, MMU_MODE_BYTE = 23, 24
MODE_MASK, MODE_LEGACY, MODE_EITHER = 0xC0, 0x00, 0x80
"""Of both bytes: XICS and hash MMU are the legacy modes; 0x40 asks for XIVE or radix only."""
VECTOR_5_BYTES = 26
UPDATE_HEADER = (1).to_bytes(4, "big")
"""What H_CAS puts before the tree: version 1 of this answer, QEMU's and SLOF's only one."""

log = structlog.get_logger()


class VectorError(ValueError):
    """The block breaks its format."""


@dataclass(frozen=True)
class ClientVectors:
    """What the client says."""

    processors: tuple[tuple[int, int], ...]
    """(mask, PVR) pairs."""
    options: tuple[bytes, ...]
    """Option vectors 1 and up, without their length byte."""

    def accepts(self, pvr: int) -> bool:
        """Whether the client runs on a processor."""
        return any(pvr & mask == wanted & mask for mask, wanted in self.processors)

    def option(self, vector: int, byte: int) -> int:
        """A byte of an option vector; 0 behind its end."""
        data = self.options[vector - 1]
        return data[byte - 1] if byte <= len(data) else 0


def parse(block: bytes) -> ClientVectors:
    """Take a vector block apart; what follows it is ignored. Raises VectorError."""
    processors: list[tuple[int, int]] = []
    offset = 0
    while True:
        if len(processors) == MAX_PAIRS:
            raise VectorError(f"more than {MAX_PAIRS} processors")
        if offset + 8 > len(block):
            raise VectorError("the list of processors does not end")
        mask, pvr = struct.unpack_from(">II", block, offset)
        offset += 8
        processors.append((mask, pvr))
        if pvr & ~mask:
            break
    count = _byte(block, offset) + 1
    offset += 1
    options = []
    for _ in range(count):
        length = _byte(block, offset) + 1
        options.append(block[offset + 1 : offset + 1 + length])
        offset += 1 + length
        if offset > len(block):
            raise VectorError("an option vector does not end")
    return ClientVectors(tuple(processors), tuple(options))


def _byte(block: bytes, offset: int) -> int:
    if offset >= len(block):
        raise VectorError("the block does not end")
    return block[offset]


@dataclass(frozen=True)
class Agreement:
    """What client and platform agreed on."""

    processor: int
    """PVR."""
    vector_5: bytes
    """With its length byte."""

    def write(self, root: fdt.Node) -> None:
        """Put it into a tree."""
        cpus = root.find("/cpus")
        for node in cpus.children if cpus is not None else ():
            if node.properties.get("device_type") == b"cpu\0":
                node.properties["cpu-version"] = self.processor.to_bytes(4, "big")
        (root.find("/chosen") or root).properties["ibm,architecture-vec-5"] = self.vector_5


async def agree(vm: Vm, address: int) -> Agreement | H:
    """Agree with the client whose vectors are at address. Returns the code of the refusal when that cannot be."""
    address &= LOGICAL_ADDRESS_MASK
    available = min(MAX_BLOCK_BYTES, max(vm.memory.size - address, 0))
    try:
        vectors = parse(await vm.memory.read(address, available))
    except VectorError as error:
        log.debug("client architecture vectors refused", vm=vm.name, reason=str(error))
        return H.PARAMETER
    if len(vectors.options) < 5:
        return H.PARAMETER
    processor = next((pvr for pvr in PROCESSORS if vectors.accepts(pvr)), None)
    modes = [vectors.option(5, byte) & MODE_MASK for byte in (INTERRUPT_MODE_BYTE, MMU_MODE_BYTE)]
    if processor is None or any(mode not in (MODE_LEGACY, MODE_EITHER) for mode in modes):
        log.info("client cannot run on POWER8 with hash MMU and XICS", vm=vm.name, modes=modes)
        return H.HARDWARE
    return Agreement(processor, agreed_vector_5(vectors))


async def negotiate(of: ClientInterface, address: int) -> int:
    """Agree with a client of ours, and change the tree that it sees. Returns 0, or a code that means refusal."""
    agreement = await agree(of.vm, address)
    if not isinstance(agreement, Agreement):
        return agreement
    agreement.write(of.tree.root.node)
    await of.store_tree(dt.TREE_ORIGIN_CAS)
    return H.SUCCESS


async def negotiate_for_firmware(of: ClientInterface, address: int, buffer: int, size: int) -> int:
    """H_CAS: agree with a client of the guest's own firmware, which gets the platform's tree anew in size bytes at buffer.

    The tree is the store's: what our client interface has added to its own copy is nothing to another firmware.
    """
    agreement = await agree(of.vm, address)
    if not isinstance(agreement, Agreement):
        return agreement
    try:
        blob = await of.revise_stored_tree(agreement.write, dt.TREE_ORIGIN_CAS, size - len(UPDATE_HEADER))
    except (TreeStoreError, fdt.FdtError) as error:
        log.error("no tree for the client", vm=of.vm.name, reason=str(error))
        return H.HARDWARE
    if blob is None:
        return H.PARAMETER
    await of.vm.memory.write(buffer & LOGICAL_ADDRESS_MASK, UPDATE_HEADER + _without_the_firmwares_own(blob))
    return H.SUCCESS


def _without_the_firmwares_own(blob: bytes) -> bytes:
    """Return a tree whose /chosen has PAPR's properties only: SLOF puts all others over what its client has there, such as a
    boot loader's bootargs."""
    tree = fdt.read(blob)
    chosen = tree.root.find("/chosen")
    if chosen is not None:
        chosen.properties = {name: value for name, value in chosen.properties.items() if name.startswith("ibm,")}
    return fdt.emit(tree)


def agreed_vector_5(vectors: ClientVectors) -> bytes:
    """Option vector 5 with its length byte: what both sides support. Its modes are 0: XICS, hash MMU."""
    vector = bytearray(1 + VECTOR_5_BYTES)
    vector[0] = VECTOR_5_BYTES - 1
    for byte, bits in AFFINITY_SUPPORTED:
        vector[byte] |= bits & vectors.option(5, byte)
    return bytes(vector)
