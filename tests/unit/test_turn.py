# SPDX-License-Identifier: GPL-2.0-or-later
"""What a turn has done is told at its end, once: by the end of a look, or by the event loop's turn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.outbox import Outbox
from splitvisor.trap.turn import Turn


def run(test: Callable[[Turn, list[str]], Awaitable[None]]) -> list[str]:
    said: list[str] = []

    async def inside() -> None:
        await test(Turn(lambda: said.append("finish")), said)

    asyncio.run(inside())
    return said


def test_a_look_ends_with_what_it_asked_for_once() -> None:
    async def test(turn: Turn, said: list[str]) -> None:
        turn.begin()
        for name in ("first", "second"):
            turn.soon(partial(said.append, name))
        turn.due()
        assert not said
        turn.end()
        assert said == ["first", "second", "finish"]
        await asyncio.sleep(0)

    assert run(test) == ["first", "second", "finish"]


def test_outside_of_a_look_the_event_loop_ends_a_turn() -> None:
    async def test(turn: Turn, said: list[str]) -> None:
        turn.soon(lambda: said.append("first"))
        assert not said
        await asyncio.sleep(0)

    assert run(test) == ["first", "finish"]


def test_a_look_ends_what_was_asked_for_before_it() -> None:
    async def test(turn: Turn, said: list[str]) -> None:
        turn.soon(lambda: said.append("first"))
        turn.begin()
        turn.end()
        assert said == ["first", "finish"]
        await asyncio.sleep(0)

    assert run(test)[:2] == ["first", "finish"]


def test_what_is_asked_for_at_the_end_belongs_to_the_next_turn() -> None:
    async def test(turn: Turn, said: list[str]) -> None:
        turn.begin()
        turn.soon(lambda: turn.soon(lambda: said.append("later")))
        turn.end()
        assert said == ["finish"]
        await asyncio.sleep(0)

    assert run(test) == ["finish", "later", "finish"]


def test_what_fails_is_not_in_the_way_of_the_rest() -> None:
    def fail() -> None:
        raise RuntimeError("on purpose")

    async def test(turn: Turn, said: list[str]) -> None:
        turn.begin()
        turn.soon(fail)
        turn.soon(lambda: said.append("second"))
        turn.end()

    assert run(test) == ["second", "finish"]


class _Connection:
    def __init__(self) -> None:
        self.sent: list[pb.AttachResponse] = []

    def send(self, message: pb.AttachResponse) -> None:
        self.sent.append(message)


@pytest.mark.parametrize("with_entries", [True, False])
def test_memory_is_told_with_the_entries_of_its_turn_or_alone(with_entries: bool) -> None:
    async def test() -> list[pb.AttachResponse]:
        outbox, connection = Outbox(), _Connection()
        here: Any = connection
        outbox.connection = here
        outbox.wrote(0x1000, 0x200)
        outbox.wrote(0x8000, 36)
        if with_entries:
            outbox.turn.soon(lambda: outbox.put_entries(0x7100_0002, 5, bytes(16)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return connection.sent

    ranges = [pb.MemoryRange(address=0x1000, length=0x200), pb.MemoryRange(address=0x8000, length=36)]
    sent = asyncio.run(test())
    if with_entries:
        put = pb.CrqEntries(unit_address=0x7100_0002, position=5, entries=bytes(16), dirty=ranges)
        assert sent == [pb.AttachResponse(crq_entries=put)]
    else:
        assert sent == [pb.AttachResponse(dirty=each) for each in ranges]
