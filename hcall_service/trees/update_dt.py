# SPDX-License-Identifier: GPL-2.0-or-later
"""H_UPDATE_DT: firmware hands over the tree that it gives to its client. The hypercall is KVM's and QEMU's, not PAPR's.

SLOF makes it at quiesce. The blob is a guest's, so nothing in it is believed: it is copied once, in pieces, and only the copy is
looked at.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Protocol

import structlog

from hcall_service.device_tree_store import Store, StoreError, UnknownRevisionError
from splitvisor.backend import Call, Hypercall, Vm
from splitvisor.declarations.guest_memory import LOGICAL_ADDRESS_MASK, GuestAddressError, GuestMemory
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from splitvisor.rpc import device_tree_pb2 as pb
from splitvisor.tree import fdt

HEADER_BYTES = 40
PIECE_BYTES = 64 << 10
"""Guest memory is read in pieces of this size, so that other VMs are served in between."""
GROWTH = 2
"""A tree may be this many times as large as the one that the guest started from: what firmware adds is small."""
BASELINES = frozenset({pb.TREE_ORIGIN_SEED, pb.TREE_ORIGIN_CAS, pb.TREE_ORIGIN_QUIESCE})
"""Origins of trees that we made. A tree that a guest gave does not raise the limit for the next one."""

log = structlog.get_logger()


class UpdateRefusedError(Exception):
    """A check failed: its name, what was found, and the hypercall's return code."""

    def __init__(self, check: str, detail: str, code: H = H.PARAMETER) -> None:
        super().__init__(f"{check}: {detail}")
        self.check, self.detail, self.code = check, detail, code


@dataclass(frozen=True)
class TreeUpdates:
    """Takes the trees of every VM's firmware to a store."""

    store: Store

    async def update(self, vm: str, memory: GuestMemory, address: int) -> H:
        """H_UPDATE_DT(address) of a VM: store the blob there; it is durable when this returns H_SUCCESS.

        H_PARAMETER: the blob is not in RAM, too large, or broken. H_HARDWARE: the store does not take it. The log says
        which check failed. A tree that is the head already, as after a repeated call, is not stored twice.
        """
        try:
            blob = await self._copy(vm, memory, address & LOGICAL_ADDRESS_MASK)
            revision = await asyncio.to_thread(self._keep, vm, blob)
        except UpdateRefusedError as refused:
            log.warning("H_UPDATE_DT refused", vm=vm, address=hex(address), check=refused.check, detail=refused.detail)
            return refused.code
        log.info("H_UPDATE_DT stored", vm=vm, revision=revision, size=len(blob))
        return H.SUCCESS

    async def _copy(self, vm: str, memory: GuestMemory, address: int) -> bytes:
        try:
            header = await memory.read(address, HEADER_BYTES)
        except GuestAddressError as error:
            raise UpdateRefusedError("header address", str(error)) from error
        if int.from_bytes(header[:4]) != fdt.MAGIC:
            raise UpdateRefusedError("magic", f"{int.from_bytes(header[:4]):#010x}, not {fdt.MAGIC:#010x}")
        size = int.from_bytes(header[4:8])
        limit = await asyncio.to_thread(self._limit, vm)
        if not HEADER_BYTES <= size <= limit:
            raise UpdateRefusedError("size", f"totalsize is {size} bytes, must be {HEADER_BYTES} to {limit}")
        pieces: list[bytes] = []
        try:
            memory.check(address, size)
            for start in range(0, size, PIECE_BYTES):
                pieces.append(await memory.read(address + start, min(PIECE_BYTES, size - start)))
                await asyncio.sleep(0)
        except GuestAddressError as error:
            raise UpdateRefusedError("blob address", str(error)) from error
        return b"".join(pieces)

    def _limit(self, vm: str) -> int:
        try:
            revisions = self.store.revisions(vm)
        except UnknownRevisionError as error:
            raise UpdateRefusedError("VM", f"{error}; a machine's seed comes first") from error
        except StoreError as error:
            raise UpdateRefusedError("store", str(error), H.HARDWARE) from error
        baseline = next((revision.size for revision in revisions if revision.origin in BASELINES), 0)
        return min(GROWTH * baseline, fdt.MAX_SIZE)

    def _keep(self, vm: str, blob: bytes) -> int:
        """Check and store. The store returns when the revision is on the disk."""
        try:
            fdt.read(blob)
            head = self.store.revisions(vm)[0]
            if head.origin == pb.TREE_ORIGIN_UPDATE_DT and head.sha256 == hashlib.sha256(blob).digest():
                return head.number
            return self.store.put(vm, pb.TREE_ORIGIN_UPDATE_DT, blob)
        except fdt.FdtError as error:
            check, _, detail = str(error).partition(": ")
            raise UpdateRefusedError(check, detail) from error
        except (UnknownRevisionError, StoreError) as error:
            raise UpdateRefusedError("store", str(error), H.HARDWARE) from error


class TreeUpdateSession(Protocol):
    """What the handler needs of a session."""

    vm: Vm
    tree_updates: TreeUpdates


async def update_dt(session: TreeUpdateSession, call: Call) -> int:
    """H_UPDATE_DT(address of a flattened tree)."""
    return await session.tree_updates.update(session.vm.name, session.vm.memory, call.arguments[0])


UPDATE_DT_CALLS: tuple[Hypercall, ...] = (
    Hypercall(
        Hcall.H_UPDATE_DT,
        update_dt,
        arguments=1,
        section="private to KVM, QEMU and SLOF",
        note="at most twice the size of the tree that the guest started from",
    ),
)
