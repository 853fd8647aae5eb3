# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames of a network device for the firmware: bounded, for it alone, and gone as soon as the guest's driver is there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence

from splitvisor.backend import Call, Result
from splitvisor.papr.codes import H
from splitvisor.papr.frame_access import FrameOperation, FrameRequest
from tests.frames import BROADCAST, ethernet
from tests.unit.test_llan_calls import GROUP, MAC, PEER, UNIT, Lan, scenario, to_guest
from vio_service.devices.llan.firmware import CALLS
from vio_service.devices.llan.firmware_port import WAITING_FRAMES

SENT, RECEIVED, ROOM = 0x8000, 0x9000, 1518


async def call(lan: Lan, request: FrameRequest) -> tuple[int, Sequence[int]]:
    answer = CALLS[0].handler(lan.session, Call(0, request.arguments()))
    done = await answer if isinstance(answer, Awaitable) else answer
    return (done.result, done.outputs) if isinstance(done, Result) else (done, ())


async def exchange(lan: Lan, frame: bytes = b"", room: int = ROOM, wait_ms: int = 0) -> bytes | int:
    """Returns a frame, or a code that is not success."""
    lan.ram[SENT : SENT + len(frame)] = frame
    request = FrameRequest(UNIT, FrameOperation.EXCHANGE, SENT, len(frame), RECEIVED, room, wait_ms)
    result, outputs = await call(lan, request)
    return bytes(lan.ram[RECEIVED : RECEIVED + outputs[0]]) if result == H.SUCCESS else result


async def close(lan: Lan) -> int:
    return (await call(lan, FrameRequest(UNIT, FrameOperation.CLOSE)))[0]


def test_frames_go_both_ways() -> None:
    async def body(lan: Lan) -> None:
        lan.peer.send(to_guest(0))
        await lan.turns()
        frame = ethernet(BROADCAST, MAC, bytes(46))
        assert await exchange(lan, frame) == b"", "what has arrived before the firmware asked is lost"
        await lan.turns()
        assert lan.heard == [frame]
        for number in range(3):
            lan.peer.send(to_guest(number))
        await lan.turns()
        assert [await exchange(lan) for _ in range(4)] == [*(to_guest(number) for number in range(3)), b""]

    scenario(body)


def test_a_call_waits_for_a_frame_and_no_longer_than_it_says() -> None:
    async def body(lan: Lan) -> None:
        assert await exchange(lan) == b""
        waiting = asyncio.create_task(exchange(lan, wait_ms=100))
        await lan.turns()
        assert not waiting.done()
        lan.peer.send(to_guest(5))
        assert await waiting == to_guest(5)
        began = time.monotonic()
        assert await exchange(lan, wait_ms=1 << 40) == b""
        assert 0.09 < time.monotonic() - began < 5

    scenario(body)


def test_it_gets_what_is_for_it() -> None:
    async def body(lan: Lan) -> None:
        await exchange(lan)
        for destination in (PEER[:5] + b"\x77", GROUP, BROADCAST, MAC):
            lan.peer.send(to_guest(1, destination=destination))
        await lan.turns()
        assert [(await exchange(lan) or b"")[:6] for _ in range(4)] == [GROUP, BROADCAST, MAC, b""]  # type: ignore[index]

    scenario(body)


def test_what_waits_is_bounded_and_large_frames_are_lost() -> None:
    async def body(lan: Lan) -> None:
        await exchange(lan)
        lan.peer.send(to_guest(0, 1505))
        for number in range(WAITING_FRAMES + 100):
            lan.peer.send(to_guest(number, 1504))
            await asyncio.sleep(0)
        await lan.turns()
        assert await exchange(lan, room=1517) == b"", "frames of 1,518 bytes do not fit"
        for number in range(WAITING_FRAMES + 100):
            lan.peer.send(to_guest(number, 50))
        await lan.turns()
        found = 0
        while await exchange(lan):
            found += 1
        assert found == WAITING_FRAMES

    scenario(body)


def test_nothing_is_kept_after_a_close() -> None:
    async def body(lan: Lan) -> None:
        assert await close(lan) == H.SUCCESS
        await exchange(lan)
        lan.peer.send(to_guest(1))
        await lan.turns()
        assert await close(lan) == H.SUCCESS
        lan.peer.send(to_guest(2))
        await lan.turns()
        assert await exchange(lan) == b""

    scenario(body)


def test_the_guests_driver_takes_the_device_and_finds_nothing_of_the_firmware() -> None:
    async def body(lan: Lan) -> None:
        await exchange(lan)
        lan.peer.send(to_guest(1))
        await lan.turns()
        waiting = asyncio.create_task(exchange(lan, room=20, wait_ms=100))
        await lan.turns()
        assert await lan.register() == H.SUCCESS
        assert await waiting == H.RESOURCE
        assert await exchange(lan, ethernet(BROADCAST, MAC, bytes(46))) == H.RESOURCE
        assert lan.heard == []
        await lan.add(0)
        await lan.add(1)
        lan.peer.send(to_guest(2))
        await lan.until(lambda: lan.entry(0)[0] == 0xC000_0008)
        assert lan.frame(0 if lan.entry(0)[2] == 0 else 1, len(to_guest(2))) == to_guest(2), "the first frame is a new one"
        assert lan.entry(1)[0] == 0
        assert (await lan.call("H_FREE_LOGICAL_LAN", UNIT))[0] == H.SUCCESS
        assert await exchange(lan) == b"", "and the firmware has it again"
        await lan.session.reset()
        lan.peer.send(to_guest(3))
        await lan.turns()
        assert await exchange(lan) == b""

    scenario(body)


def test_a_call_that_cannot_be_is_refused() -> None:
    async def body(lan: Lan) -> None:
        size = len(lan.ram)
        for request in (
            FrameRequest(UNIT + 1, FrameOperation.EXCHANGE),
            FrameRequest(UNIT, FrameOperation.EXCHANGE, size, 60),
            FrameRequest(UNIT, FrameOperation.EXCHANGE, 0, 0, size - 1, 60),
            FrameRequest(UNIT, FrameOperation.EXCHANGE, 0, 5),
        ):
            assert (await call(lan, request))[0] == H.PARAMETER

    scenario(body)
