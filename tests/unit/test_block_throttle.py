# SPDX-License-Identifier: GPL-2.0-or-later
"""What a disk may do in a second is exact over time, with a burst of one second, and the first to come is the first to go on."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from splitvisor.block.throttle import BURST_SECONDS, Bucket, Throttle


class Clock:
    """A time that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(
    st.integers(1, 1 << 30),
    st.lists(st.tuples(st.floats(0, 3), st.integers(1, 1 << 22)), min_size=1, max_size=60),
)
def test_no_time_has_more_than_its_tokens_and_a_burst(rate: int, takes: list[tuple[float, int]]) -> None:
    clock = Clock()
    bucket = Bucket(rate, clock)
    used: list[tuple[float, int]] = []
    for pause, tokens in takes:
        clock.now += pause
        used.append((clock.now + bucket.take(tokens), tokens))
    times = [time for time, _ in used]
    assert times == sorted(times), "a later one must not overtake"
    for first in range(len(used)):
        for last in range(first, len(used)):
            sent = sum(tokens for _, tokens in used[first:last])  # The last may be larger than the bucket: it is paid for later.
            last_part = min(used[last][1], BURST_SECONDS * rate)
            allowed = (used[last][0] - used[first][0] + BURST_SECONDS) * rate
            assert sent + last_part <= allowed * (1 + 1e-9) + 1


def test_what_waits_all_the_time_gets_the_rate_exactly() -> None:
    clock = Clock()
    bucket = Bucket(1000, clock)
    began, count = clock.now, 5000
    for _ in range(count):
        clock.now += bucket.take(7)
    assert abs((clock.now - began) - (count * 7 / 1000 - BURST_SECONDS)) < 1e-6


def test_no_limit_is_no_wait() -> None:
    assert Bucket(0, Clock()).take(1 << 60) == 0


def test_a_transfer_that_is_cancelled_while_it_waits_gives_its_tokens_back() -> None:
    clock = Clock()

    async def cancelled() -> None:
        throttle = Throttle(0, 10, clock)
        for _ in range(10):
            await throttle.take(512)
        waiting = asyncio.create_task(throttle.take(512))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        clock.now += 0.1
        await asyncio.wait_for(throttle.take(512), 60)  # Would never end if it had to wait: the clock stands.

    asyncio.run(cancelled())
