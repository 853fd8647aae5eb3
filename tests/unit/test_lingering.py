# SPDX-License-Identifier: GPL-2.0-or-later
"""A back end looks for the next request before it sleeps while requests follow each other closely, and for a moment only."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from splitvisor.trap import lingering
from splitvisor.trap.lingering import LINGER_S, SHORT_S, Lingering


class Clock:
    """Time, and how often the event loop has been kept awake at one moment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.looks = 0
        monkeypatch.setattr(lingering, "time", SimpleNamespace(monotonic=self._read))

    def _read(self) -> float:
        self.looks += 1
        return self.now

    async def keeps_awake(self) -> bool:
        """Whether the event loop is kept from sleeping."""
        before = self.looks
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return self.looks > before


def pause(clock: Clock, here: Lingering, seconds: float, times: int = 1) -> None:
    for _ in range(times):
        clock.now += seconds
        here.began()
        here.ended()


def test_it_looks_while_requests_are_close_and_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    async def test() -> None:
        here = Lingering()
        pause(clock, here, 1.0)
        assert not await clock.keeps_awake()
        pause(clock, here, SHORT_S / 2, 20)
        assert await clock.keeps_awake()
        clock.now += 2 * LINGER_S
        await clock.keeps_awake()
        assert not await clock.keeps_awake()

    asyncio.run(test())


def test_it_sleeps_when_requests_are_far_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    async def test() -> None:
        here = Lingering()
        pause(clock, here, SHORT_S / 2, 20)
        clock.now += 2 * LINGER_S
        await clock.keeps_awake()
        pause(clock, here, 2 * SHORT_S, 8)
        assert here.short < lingering.WORTH
        clock.now += 2 * LINGER_S
        await clock.keeps_awake()
        pause(clock, here, 2 * SHORT_S)
        assert not await clock.keeps_awake()

    asyncio.run(test())


def test_others_have_their_turns_meanwhile() -> None:
    async def test() -> None:
        here = Lingering()
        here.short = 1.0
        for _ in range(3):
            here.began()
            here.ended()
        began = time.monotonic()
        await asyncio.sleep(0.01)
        assert time.monotonic() - began < 5.0

    asyncio.run(test())
