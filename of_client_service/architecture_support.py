# SPDX-License-Identifier: GPL-2.0-or-later
"""ibm,client-architecture-support: the client says what it can do, the platform what it does (LoPAPR B.6.2.3, CAS).

The vector block that the client passes:

    pairs of 32-bit words (mask, PVR)       processors; the pair with a PVR bit outside its mask is the last one
    byte n - 1                              number of option vectors
    n times: byte L, then L + 1 bytes       option vectors 1 to n; bytes of a vector count from 1, bits from the most significant

The answer goes into the tree: cpu-version of every CPU, and option vector 5 as agreed, in /chosen.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import structlog

from of_client_service.client_interface import ClientInterface
from splitvisor.guest_memory import LOGICAL_ADDRESS_MASK
from splitvisor.papr.codes import H
from splitvisor.rpc import device_tree_pb2 as dt

MAX_BLOCK_BYTES = 8192
"""Linux's block has 300 bytes."""
MAX_PAIRS = 512

POWER8_PVR = 0x004D_0200
ARCHITECTURE_2_07 = 0x0F00_0004
PROCESSORS = (ARCHITECTURE_2_07, POWER8_PVR)
"""What this platform can be, the preferred first: the architecture level lets a guest move to another kind of CPU."""

FORM1_AFFINITY = (5, 0x80)
AFFINITY_SUPPORTED = (FORM1_AFFINITY,)
INTERRUPT_MODE_BYTE, MMU_MODE_BYTE = 23, 24
MODE_MASK, MODE_LEGACY, MODE_EITHER = 0xC0, 0x00, 0x80
"""Of both bytes: XICS and hash MMU are the legacy modes; 0x40 asks for XIVE or radix only."""
VECTOR_5_BYTES = 26

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


async def negotiate(of: ClientInterface, address: int) -> int:
    """Agree with the client whose vectors are at address, and change the tree. Returns 0, or a code that means refusal."""
    address &= LOGICAL_ADDRESS_MASK
    available = min(MAX_BLOCK_BYTES, max(of.vm.memory.size - address, 0))
    try:
        vectors = parse(await of.vm.memory.read(address, available))
    except VectorError as error:
        log.debug("client architecture vectors refused", vm=of.vm.name, reason=str(error))
        return H.PARAMETER
    if len(vectors.options) < 5:
        return H.PARAMETER
    processor = next((pvr for pvr in PROCESSORS if vectors.accepts(pvr)), None)
    modes = [vectors.option(5, byte) & MODE_MASK for byte in (INTERRUPT_MODE_BYTE, MMU_MODE_BYTE)]
    if processor is None or any(mode not in (MODE_LEGACY, MODE_EITHER) for mode in modes):
        log.info("client cannot run on POWER8 with hash MMU and XICS", vm=of.vm.name, modes=modes)
        return H.HARDWARE
    for package in of.tree.packages():
        if package.text("device_type") == "cpu":
            package.node.properties["cpu-version"] = processor.to_bytes(4, "big")
    of.chosen.node.properties["ibm,architecture-vec-5"] = agreed_vector_5(vectors)
    await of.store_tree(dt.TREE_ORIGIN_CAS)
    return H.SUCCESS


def agreed_vector_5(vectors: ClientVectors) -> bytes:
    """Option vector 5 with its length byte: what both sides support. Its modes are 0: XICS, hash MMU."""
    vector = bytearray(1 + VECTOR_5_BYTES)
    vector[0] = VECTOR_5_BYTES - 1
    for byte, bits in AFFINITY_SUPPORTED:
        vector[byte] |= bits & vectors.option(5, byte)
    return bytes(vector)
