# SPDX-License-Identifier: GPL-2.0-or-later
"""Streams that go wrong only once they are open: services live, stay small, answer, and log no error.

What test_wire.py sends stops at the first check, most of it. Here every conversation gets past that, and the test counts what it
knows to have been taken behind it. There are half as many messages as SPLITVISOR_FUZZ_MESSAGES says (10,000), or a few more;
SPLITVISOR_FUZZ_SEED sets where they start.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio

from splitvisor.rpc import device_tree_pb2 as dt
from splitvisor.rpc import device_tree_pb2_grpc as dt_grpc
from splitvisor.rpc import machine_pb2, machine_pb2_grpc
from tests.demo_machine import machine_stub, start_demo
from tests.fuzz.fuzzed_services import GROWTH_KIB, errors_logged, resident_kib
from tests.fuzz.mutator import Mutator
from tests.fuzz.stream_talks import ConsoleTalk, RestoreTalk, WatchTalk, altered_state
from tests.fuzz.trap_talk import TrapTalk
from tests.services import Service

MESSAGES = int(os.environ.get("SPLITVISOR_FUZZ_MESSAGES", "10000")) // 2
SEED = int(os.environ.get("SPLITVISOR_FUZZ_SEED", "1"))
BACKENDS = ("hcall", "vio", "of-client")
VMS = 6
"""Names of VMs at each back end; they come again and again, with higher incarnations."""
BURSTS = 6
VM = "demo"
WORDS = ["", VM, "vty", "nvram", "bytes", "8192", "local", "vio_service", "H_*", "a" * 300, "\u00e9", "\0"]


class Account:
    """What was sent, what is known to have been taken behind the first check, and how streams ended."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()
        self.handled: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.ends: Counter[tuple[str, str]] = Counter()

    def add(self, stream: str, sent: int, handled: Counter[str], *ends: str) -> None:
        """Take in a conversation."""
        self.sent[stream] += sent
        self.handled[stream] += handled
        self.ends.update((stream, end) for end in ends)

    def share(self, stream: str) -> float:
        """Of what was sent, how much was taken behind the first check."""
        return self.handled[stream].total() / self.sent[stream]


def give_trees(hcall: Service) -> None:
    """Let the VMs that talk to of_client_service have trees, as if they had been started."""
    with grpc.insecure_channel(hcall.address) as channel:
        trees = dt_grpc.DeviceTreeServiceStub(channel)
        blob = trees.GetTree(dt.GetTreeRequest(vm=VM, revision=1), timeout=30).blob
        for number in range(VMS * len(BACKENDS)):
            trees.PutTree(dt.PutTreeRequest(vm=f"talk-{number}", origin=dt.TREE_ORIGIN_SEED, blob=blob), timeout=30)


async def talk_to_back_ends(channels: dict[str, grpc.aio.Channel], account: Account) -> None:
    """Trap streams to each back end, as many at a time as there are VMs."""
    states: dict[str, list[bytes]] = {name: [] for name in BACKENDS}

    async def talk(number: int) -> None:
        mutator = Mutator(SEED * 1000 + number, WORDS)
        name = BACKENDS[number % len(BACKENDS)]
        stream = f"Attach {name}"
        while sum(account.sent[f"Attach {each}"] for each in BACKENDS) < MESSAGES:
            state = None
            if states[name] and mutator.source.random() < 0.4:
                backend = {"hcall": "hcall_service", "vio": "vio_service", "of-client": "of_client_service"}[name]
                state = altered_state(mutator, backend, mutator.source.choice(states[name]))
            conversation = TrapTalk(channels[name], mutator, f"talk-{number}", state)
            end = await conversation.run(BURSTS)
            account.add(stream, conversation.sent, conversation.handled, end)
            account.handled[f"{stream} asks"].update(conversation.asked)
            if conversation.saved:
                states[name] = [*states[name][-20:], conversation.saved]

    await asyncio.gather(*(talk(number) for number in range(VMS * len(BACKENDS))))


async def repeat(count: int, run: Callable[[Mutator], Awaitable[None]]) -> None:
    mutator = Mutator(SEED, WORDS)
    for _ in range(count):
        await run(mutator)


async def talk_to_a_machine(channels: dict[str, grpc.aio.Channel], account: Account) -> None:
    """Everything that needs a machine, then restores of it."""
    stub: machine_pb2_grpc.MachineServiceAsyncStub = machine_pb2_grpc.MachineServiceStub(channels["cpu"])

    async def watch(mutator: Mutator) -> None:
        watches = WatchTalk(channels, mutator, VM)
        for name, end in await watches.run():
            account.add(name, 1, Counter({name: watches.handled[name]}), end)

    async def type_at(mutator: Mutator) -> None:
        terminal = ConsoleTalk(channels["vio"], mutator, VM)
        end = await terminal.run()
        account.add("AttachConsole", terminal.sent, terminal.handled, end)

    await asyncio.gather(repeat(max(5, MESSAGES // 1000), watch), repeat(max(10, MESSAGES // 250), type_at))
    parts = [part.data async for part in stub.SaveMachine(machine_pb2.SaveMachineRequest(vm=VM, stop=True)) if part.data]
    snapshot = b"".join(parts)

    async def restore(mutator: Mutator) -> None:
        talk = RestoreTalk(channels["cpu"], mutator, VM, snapshot)
        end = await talk.run()
        account.add("RestoreMachine", talk.sent, talk.handled, end)

    await repeat(max(12, MESSAGES // 500), restore)


def test_streams_go_wrong_behind_their_first_message(fuzzed: dict[str, Service]) -> None:
    before = {name: resident_kib(service) for name, service in fuzzed.items()}
    account = Account()

    async def run() -> None:
        channels = {name: grpc.aio.insecure_channel(service.address) for name, service in fuzzed.items()}
        try:
            await asyncio.gather(talk_to_back_ends(channels, account), talk_to_a_machine(channels, account))
        finally:
            await asyncio.gather(*(channel.close(None) for channel in channels.values()))

    with machine_stub(fuzzed) as stub:
        start_demo(stub, fuzzed)
    give_trees(fuzzed["hcall"])
    asyncio.run(run())
    grown = {name: resident_kib(service) - before[name] for name, service in fuzzed.items()}
    print("grown by KiB:", grown)
    for stream, handled in sorted(account.handled.items()):
        print(f"{stream}: {account.sent[stream]} sent;", ", ".join(f"{kind} {count}" for kind, count in sorted(handled.items())))
    print("ends:", dict(account.ends))
    assert "\n".join(errors_logged(fuzzed)) == ""
    assert {key: count for key, count in account.ends.items() if ":" in key[1]} == {}
    assert all(service.process.poll() is None for service in fuzzed.values())
    assert {name: kib for name, kib in grown.items() if kib > GROWTH_KIB} == {}
    # The depth: of all that was sent, this much is known to have been taken by a handler behind the first check.
    assert {stream: account.share(stream) for stream in account.sent if account.share(stream) < 0.5} == {}
    for name in BACKENDS:
        taken = account.handled[f"Attach {name}"]
        assert set(taken) >= {"hello", "hello, restored", "trap", "posted", "reset", "save_state", "resumed", "memory_result"}
    assert account.handled["Attach of-client asks"].keys() >= {"memory_read", "invoke"}
    # Which section is altered, chance says; sections of back ends are the most, and some of them are good enough to run.
    assert len({kind.partition(",")[0] for kind in account.handled["RestoreMachine"]}) >= 3
    assert account.handled["RestoreMachine"]["backend, running"] > 0
