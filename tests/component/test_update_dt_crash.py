# SPDX-License-Identifier: GPL-2.0-or-later
"""H_UPDATE_DT against hcall_service as a process that is killed: what the guest was told is stored is stored."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import grpc

from hcall_service.device_tree_store import open_store
from splitvisor import fdt
from splitvisor.fdt import Node, Tree
from splitvisor.rpc import device_tree_pb2 as pb
from splitvisor.rpc import device_tree_pb2_grpc
from tests.component.console_harness import DEADLINE, RAM_BYTES, Guest
from tests.services import Service

KILLS = 8
UPDATES = 6
ADDRESS = 0x1000


def final_tree(number: int) -> bytes:
    return fdt.emit(Tree(Node("", {"number": number.to_bytes(4), "text": b"x" * 500})))


async def one_life(address: str, incarnation: int, service: Service, choose: random.Random) -> tuple[bytes, bytes]:
    """Update a few times, then kill the service at some moment. Returns the last tree that was accepted, and the one after it."""
    accepted = offered = b""
    async with asyncio.timeout(DEADLINE), Guest(address, incarnation=incarnation) as guest:
        for number in range(UPDATES):
            offered = final_tree(incarnation << 8 | number)
            guest.ram[ADDRESS : ADDRESS + len(offered)] = offered
            assert (await guest.call("H_UPDATE_DT", ADDRESS)).result == 0
            accepted = offered
        offered = final_tree(incarnation << 8 | 0xFF)
        guest.ram[ADDRESS : ADDRESS + len(offered)] = offered
        late = asyncio.create_task(guest.call("H_UPDATE_DT", ADDRESS))
        await asyncio.sleep(choose.choice([0, 0, 0.002, 0.01]))
        service.kill()
        if late.done():
            assert late.result().result == 0
            accepted = offered
        late.cancel()
        await asyncio.gather(late, return_exceptions=True)
    return accepted, offered


def test_what_was_accepted_outlives_a_kill_at_any_moment(short_path: Path) -> None:
    store_path = short_path / "trees.sqlite"
    service = Service("hcall", short_path, "--store", str(store_path))
    choose = random.Random(9)

    async def build() -> None:
        async with grpc.aio.insecure_channel(service.address) as channel:
            trees: Any = device_tree_pb2_grpc.DeviceTreeServiceStub(channel)
            await trees.BuildTree(pb.BuildTreeRequest(vm="vm", ram_bytes=RAM_BYTES, vcpus=1, hash_table_shift=18))

    try:
        for incarnation in range(1, KILLS + 1):
            if incarnation > 1:
                service.start()
            asyncio.run(build())
            accepted, offered = asyncio.run(one_life(service.address, incarnation, service, choose))
            store = open_store(str(store_path))
            head, blob = store.get("vm")
            history = [fdt.read(store.get("vm", revision.number)[1]) for revision in store.revisions("vm")]
            store.close()
            assert blob in (accepted, offered), f"life {incarnation}: revision {head.number} is neither"
            assert head.origin == pb.TREE_ORIGIN_UPDATE_DT
            assert len(history) >= incarnation * (UPDATES + 1)
    finally:
        service.end()
