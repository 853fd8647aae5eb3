# SPDX-License-Identifier: GPL-2.0-or-later
"""hcall_service under kill -9: what it acknowledged is there afterwards, and nothing is there that is not whole.

Each VM has two writers: a service that puts trees, and a guest that makes H_UPDATE_DT.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import random
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from hcall_service.device_tree_store import UnknownRevisionError, open_store
from splitvisor.rpc import device_tree_pb2 as pb
from splitvisor.rpc import device_tree_pb2_grpc
from splitvisor.tree import fdt
from tests.component.console_harness import Guest
from tests.postgresql_server import PostgresqlServer
from tests.real_trees import seed_blob

ROOT = Path(__file__).resolve().parent.parent.parent
VMS = ("a", "b")
BLOB_ADDRESS = 0x1000
"""Where the guests have their trees."""
LONGEST_LIFE_S = 0.030
"""After the first acknowledgement."""
EARLY_LIFE_S = 0.030
"""Of every eighth service, from its very start: it dies while it loads, opens the store, or begins to listen."""
DEADLINE_S = 20.0
KEEP = 1_000_000

_CHANNEL = [("grpc.use_local_subchannel_pool", 1)]
_MARK = b"splitvisor,mark\0"
_TREE = fdt.read(seed_blob())
_TREE.root.properties["splitvisor,mark"] = _MARK
_BLOB = fdt.emit(_TREE)


def marked(number: int) -> bytes:
    """A valid tree like no other."""
    mark = struct.pack(">Q", number).rjust(len(_MARK), b"\xff")
    return _BLOB.replace(_MARK, mark, 1) if _BLOB.index(_MARK) < _BLOB.rindex(_MARK) else pytest.fail("the mark is not unique")


@dataclass
class Ledger:
    """What writers know."""

    numbers: Iterator[int] = field(default_factory=itertools.count)
    sent: dict[str, set[bytes]] = field(default_factory=lambda: {vm: set() for vm in VMS})
    """Digests, by VM."""
    acknowledged: dict[str, dict[int, bytes]] = field(default_factory=lambda: {vm: {} for vm in VMS})
    """Digests by revision, by VM: of PutTree."""
    updated: dict[str, set[bytes]] = field(default_factory=lambda: {vm: set() for vm in VMS})
    """Digests for which H_UPDATE_DT returned H_SUCCESS, by VM."""

    def next_blob(self, vm: str) -> tuple[bytes, bytes]:
        """Return a tree that was never sent, and its digest."""
        blob = marked(next(self.numbers))
        digest = hashlib.sha256(blob).digest()
        self.sent[vm].add(digest)
        return blob, digest

    def check(self, location: str) -> None:
        """Hold a store against it."""
        store = open_store(location, KEEP)
        try:
            for vm in VMS:
                try:
                    revisions = {revision.number: revision for revision in store.revisions(vm)}
                except UnknownRevisionError:
                    revisions = {}
                for number, digest in self.acknowledged[vm].items():
                    assert number in revisions, f"revision {number} of {vm} was acknowledged and is lost"
                    assert revisions[number].sha256 == digest
                assert sorted(revisions) == list(range(1, len(revisions) + 1))
                assert store.head(vm) == len(revisions)
                for revision in list(revisions.values())[:8]:
                    found, blob = store.get(vm, revision.number)  # Checks the digest.
                    assert found == revision
                    assert len(blob) == len(_BLOB) == revision.size
                stored = {revision.sha256 for revision in revisions.values()}
                assert stored <= self.sent[vm]
                assert self.updated[vm] <= stored, f"{vm}: H_UPDATE_DT returned H_SUCCESS and its revision is lost"
        finally:
            store.close()


class Services:
    """Starts services and kills them."""

    def __init__(self, directory: Path) -> None:
        self._socket = directory / "s"
        self._fifo = directory / "ready"
        os.mkfifo(self._fifo)
        self._ready = os.open(self._fifo, os.O_RDWR | os.O_NONBLOCK)
        self._log = (directory / "log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.service_forks"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            text=True, bufsize=1, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT,
        )  # fmt: skip

    def start(self, store: str) -> tuple[int, str]:
        """Return a pidfd and the address."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        address = f"unix:{self._socket}"
        self._socket.unlink(missing_ok=True)
        with suppress(BlockingIOError):
            os.read(self._ready, 1 << 16)  # What the service before said.
        arguments = ["hcall", "--listen", address, "--store", store, "--retention", str(KEEP), "--log-level", "error"]
        print(json.dumps({"arguments": arguments, "ready": str(self._fifo)}), file=self._process.stdin)
        return os.pidfd_open(int(self._process.stdout.readline())), address

    async def wait_ready(self) -> None:
        """Wait until the service listens."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._ready, ready.set)
        try:
            await asyncio.wait_for(ready.wait(), DEADLINE_S)
        finally:
            loop.remove_reader(self._ready)

    @staticmethod
    def kill(process: int) -> None:
        """Kill, and wait for the end; no harm when it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)
        assert select.select([process], [], [], DEADLINE_S)[0], "it does not die"

    def close(self) -> None:
        """End the process that forks."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait(DEADLINE_S)
        os.close(self._ready)
        self._log.close()


async def life(services: Services, store: str, ledger: Ledger, seconds: float, *, early: bool) -> None:
    """Start a service, write to it as fast as it takes it, and kill it in the midst; early: before or while it comes up."""
    process, address = services.start(store)
    outcomes: list[object] = []
    try:
        if early:
            await asyncio.sleep(seconds)
            return
        await services.wait_ready()
        async with grpc.aio.insecure_channel(address, options=_CHANNEL) as channel:
            stub: Any = device_tree_pb2_grpc.DeviceTreeServiceStub(channel)
            first = asyncio.Event()
            for vm in VMS:
                if not ledger.acknowledged[vm]:
                    await put(stub, vm, ledger, pb.TREE_ORIGIN_SEED)  # It limits the size of what guests may give.
            writing = [coroutine for vm in VMS for coroutine in (write(stub, vm, ledger), update(address, vm, ledger, first))]
            writers = [asyncio.create_task(coroutine) for coroutine in writing]
            await asyncio.wait_for(first.wait(), DEADLINE_S)
            # Not a wait for a condition: the moment of the kill is the experiment.
            await asyncio.sleep(seconds)
            services.kill(process)
            outcomes += await asyncio.wait_for(asyncio.gather(*writers, return_exceptions=True), DEADLINE_S)
    finally:
        services.kill(process)
        os.close(process)
    for outcome in outcomes:
        assert isinstance(outcome, grpc.aio.AioRpcError), outcome


async def put(stub: Any, vm: str, ledger: Ledger, origin: pb.TreeOrigin) -> None:
    """Put a tree; note what is sent before, and what is acknowledged after."""
    blob, digest = ledger.next_blob(vm)
    answer = await stub.PutTree(pb.PutTreeRequest(vm=vm, origin=origin, blob=blob), timeout=DEADLINE_S)
    ledger.acknowledged[vm][answer.revision] = digest


async def write(stub: Any, vm: str, ledger: Ledger) -> None:
    """Put trees until the service is gone."""
    while True:
        await put(stub, vm, ledger, pb.TREE_ORIGIN_CAS)


async def update(address: str, vm: str, ledger: Ledger, first: asyncio.Event) -> None:
    """Be a guest that makes H_UPDATE_DT until the service is gone."""
    async with Guest(address, vm=vm) as guest:
        while True:
            blob, digest = ledger.next_blob(vm)
            guest.ram[BLOB_ADDRESS : BLOB_ADDRESS + len(blob)] = blob
            reply = await asyncio.wait_for(guest.call("H_UPDATE_DT", BLOB_ADDRESS), DEADLINE_S)
            assert reply.result == 0
            ledger.updated[vm].add(digest)
            first.set()


@pytest.fixture
def services(short_path: Path) -> Iterator[Services]:
    services = Services(short_path)
    yield services
    services.close()


def kill_often(services: Services, locations: list[str], kills: int) -> Ledger:
    """Kill services on each of several new stores, so often in all; return what the last one's writers know."""
    generator = random.Random(os.urandom(8))
    for location in locations:
        ledger = Ledger()
        for number in range(kills // len(locations)):
            early = number % 8 == 0
            seconds = generator.uniform(0, EARLY_LIFE_S if early else LONGEST_LIFE_S)
            asyncio.run(life(services, location, ledger, seconds, early=early))
            if number % 2:  # Else the next service is the first to see what the dead one left.
                ledger.check(location)
        ledger.check(location)
        for confirmed in (ledger.acknowledged, ledger.updated):
            assert all(len(confirmed[vm]) > kills // len(locations) // 4 for vm in VMS)
    return ledger


def test_200_kills_of_the_service_lose_nothing_that_was_acknowledged(services: Services, tmp_path: Path) -> None:
    kill_often(services, [f"sqlite:///{tmp_path}/{index}.sqlite" for index in range(4)], 200)


def test_kills_of_the_service_lose_nothing_that_postgresql_has(services: Services) -> None:
    server = PostgresqlServer()
    try:
        kill_often(services, [server.new_database()], 40)
    finally:
        server.close()
