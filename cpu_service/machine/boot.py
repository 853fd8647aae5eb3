# SPDX-License-Identifier: GPL-2.0-or-later
"""What is in RAM and in vCPU 0's registers when a machine starts: firmware, kernel, initramfs, device tree."""

from __future__ import annotations

import io
import uuid
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

from cpu_service.engine.engine import MSR_ME, MSR_SF
from cpu_service.images.loader import LoadedImage, LoadedInitrd, LoaderError, load_firmware, load_initrd, load_program, open_image
from cpu_service.link.errors import BackendUnavailableError
from cpu_service.machine.board import TREE_OWNER, Board
from cpu_service.machine.placement import described_nodes
from cpu_service.vcpus.spin_table import TABLE_BYTES
from splitvisor import firmware
from splitvisor.net.channels import SERVICE_OPTIONS, explain, open_channel
from splitvisor.rpc import device_tree_pb2 as dt
from splitvisor.rpc import device_tree_pb2_grpc
from splitvisor.rpc import machine_pb2 as mpb
from splitvisor.rpc import trap_pb2 as pb

TREE_TIMEOUT_S = 15.0
FLAT_TREE_ROOM = 2 << 20
"""Kept at the top of RAM for the tree of a firmware that wants it flat."""
FLAT_TREE_LIMIT = 2 << 30
CLIENT_FIRMWARE_SIZE = 64 << 10
"""A firmware image of at most this size works through the client interface, as VOF does; a larger one (SLOF) gets a flat tree."""
CLIENT_FIRMWARE_STACK = 0x10000 - 0x20
"""Where such a firmware finds its stack: VOF is given one instead of making it."""
DEMO_NAME = "the demo guest"

log = structlog.get_logger()


EPAPR_MAGIC = 0x6550_4150
"""r6 of a client program that is started as ePAPR says (5.4.1), on a processor that is not of Book III-E."""


@dataclass(frozen=True)
class BootPlan:
    """How vCPU 0 starts."""

    nip: int
    gpr: dict[int, int]
    msr: int
    description: str


def load_guest(config: mpb.MachineConfig, board: Board) -> BootPlan:
    """Fill RAM, store the seed tree, and tell how vCPU 0 starts.

    Raises LoaderError for images and BackendUnavailableError when the tree cannot be built.
    """
    ram = board.ram
    kernel, description = _load_kernel(config, board)
    initrd: LoadedInitrd | None = None
    if config.initrd:
        if kernel is None:
            kernel = LoadedImage(0, 0x400000, 0, False)  # Where firmware would look for it.
        with open_image(Path(config.initrd)) as file:
            initrd = load_initrd(ram, file, config.initrd, kernel)
    epapr = config.boot_protocol == mpb.BOOT_PROTOCOL_EPAPR
    flat = min(ram.size, FLAT_TREE_LIMIT) - FLAT_TREE_ROOM
    if epapr:
        end = max(image.base + image.size for image in (kernel, initrd) if image is not None)
        if end > spin_table_address(ram.size):
            what = f"{description}: it ends at {end:#x}, and the device tree is to be at {flat:#x}"
            raise LoaderError(what, "give the machine more --memory")
        board.make_spin_table(spin_table_address(ram.size)).fill()
    seed = _build_tree(config, board, kernel, initrd)
    start, length = (initrd.base, initrd.size) if initrd is not None else (0, 0)
    if epapr:
        assert kernel is not None
        ram.write(flat, seed)
        registers = {2: kernel.toc, 3: flat, 6: EPAPR_MAGIC, 7: ram.size}
        return BootPlan(kernel.entry, registers, MSR_SF | MSR_ME, description)
    if not config.firmware:
        load_firmware(ram, io.BytesIO(firmware.FIRMWARE), "firmware")
        entry, toc = (kernel.entry, kernel.toc) if kernel is not None else (firmware.FROM_DISK, 0)
        return BootPlan(firmware.ENTRY, {2: toc, 3: entry, 4: start, 5: length}, MSR_ME, description)
    with open_image(Path(config.firmware)) as file:
        image = load_firmware(ram, file, config.firmware)
    if image.size <= CLIENT_FIRMWARE_SIZE and not config.flat_tree:
        return BootPlan(image.entry, {1: CLIENT_FIRMWARE_STACK, 3: start, 4: length, 5: 0}, MSR_ME, config.firmware)
    ram.write(flat, seed)
    return BootPlan(image.entry, {3: flat}, MSR_SF | MSR_ME, config.firmware)


def spin_table_address(ram_bytes: int) -> int:
    """Return where a machine's spin table is: just below the flat tree."""
    return min(ram_bytes, FLAT_TREE_LIMIT) - FLAT_TREE_ROOM - TABLE_BYTES


def _load_kernel(config: mpb.MachineConfig, board: Board) -> tuple[LoadedImage | None, str]:
    """Load the kernel; the demo guest when there is nothing to run; nothing when firmware finds its own, or one on a disk."""
    if config.kernel:
        with open_image(Path(config.kernel)) as file:
            return load_program(board.ram, file, config.kernel), config.kernel
    if config.firmware:
        return None, config.firmware
    if config.boot:
        return None, ", ".join(config.boot)
    return load_program(board.ram, io.BytesIO(firmware.DEMO), DEMO_NAME), DEMO_NAME


def _build_tree(config: mpb.MachineConfig, board: Board, kernel: LoadedImage | None, initrd: LoadedInitrd | None) -> bytes:
    owner = next((link for link in board.links if link.offer.backend == TREE_OWNER), None)
    if owner is None:
        raise BackendUnavailableError(
            f"none of the back ends is {TREE_OWNER}, which builds the device tree; add it: --connect hcall=ADDRESS"
        )
    request = dt.BuildTreeRequest(
        vm=config.name,
        ram_bytes=board.ram.size,
        vcpus=config.vcpus,
        hash_table_shift=board.hash_table.shift,
        bootargs=config.append,
        rtas_calls=[dt.RtasToken(name=call.name, token=call.token) for call in board.registry.rtas_calls()],
        hypercalls=board.registry.hypercalls(),
        nodes=described_nodes((link.name, link.offer.nodes) for link in board.links),
        boot=config.boot,
        spin_table=board.spin_table.address if board.spin_table is not None else 0,
        uuid=uuid.UUID(config.uuid).bytes if config.uuid else uuid.uuid5(uuid.NAMESPACE_OID, config.name).bytes,
    )
    if kernel is not None:
        request.kernel.CopyFrom(pb.MemoryRange(address=kernel.base, length=kernel.size))
        request.kernel_little_endian = kernel.little_endian
    if initrd is not None:
        request.initrd.CopyFrom(pb.MemoryRange(address=initrd.base, length=initrd.size))
    with open_channel(owner.address, SERVICE_OPTIONS) as channel:
        try:
            response = device_tree_pb2_grpc.DeviceTreeServiceStub(channel).BuildTree(request, timeout=TREE_TIMEOUT_S)
        except grpc.RpcError as error:
            raise BackendUnavailableError(f"back end {owner.name} cannot build the device tree: {explain(error)}") from error
    if board.recorder is not None:
        board.recorder.seed_tree(request, response)
    log.info("device tree stored", revision=response.revision, size=len(response.blob))
    blob: bytes = response.blob
    return blob
