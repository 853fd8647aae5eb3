# SPDX-License-Identifier: GPL-2.0-or-later
"""No more than so many have a turn, who waits goes on in order, and no turn is lost with one that is cancelled."""

from __future__ import annotations

import asyncio
import random

from splitvisor.block.turns import Turns


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_who_waits_goes_on_in_order() -> None:
    async def test() -> None:
        turns, order = Turns(2), list[int]()

        async def wait(number: int) -> None:
            await turns.wait()
            order.append(number)

        assert turns.take()
        assert turns.take()
        assert not turns.take()
        tasks = [asyncio.create_task(wait(number)) for number in range(3)]
        await settle()
        assert not order
        turns.end()
        assert not turns.take(), "it is another's"
        turns.end()
        await settle()
        assert order == [0, 1]
        for _ in range(3):
            turns.end()
        await asyncio.gather(*tasks)
        assert [turns.take() for _ in range(3)] == [True, True, False]

    asyncio.run(test())


def test_a_turn_is_not_lost_with_one_that_is_cancelled() -> None:
    async def test() -> None:
        turns = Turns(1)
        assert turns.take()
        first, second = (asyncio.create_task(turns.wait()) for _ in range(2))
        await settle()
        turns.end()
        first.cancel()  # It has its turn already, and does not know.
        await asyncio.wait([first])
        assert first.cancelled()
        await second
        third, fourth = (asyncio.create_task(turns.wait()) for _ in range(2))
        await settle()
        third.cancel()  # It is cancelled, and does not know.
        turns.end()
        await asyncio.wait([third])
        await fourth
        turns.end()
        assert turns.take()

    asyncio.run(test())


def test_any_order_of_ends_and_cancellations_keeps_the_number() -> None:
    async def test(seed: int) -> None:
        source, turns, here = random.Random(seed), Turns(3), 0

        async def work() -> None:
            nonlocal here
            if not turns.take():
                await turns.wait()
            here += 1
            assert here <= 3
            try:
                for _ in range(source.randrange(3)):
                    await asyncio.sleep(0)
            finally:
                here -= 1
                turns.end()

        tasks = []
        for _ in range(200):
            tasks.append(asyncio.create_task(work()))
            if source.random() < 0.3:
                source.choice(tasks).cancel()
            if source.random() < 0.5:
                await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [turns.take() for _ in range(4)] == [True, True, True, False]

    for seed in range(20):
        asyncio.run(test(seed))
