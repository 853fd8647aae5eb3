# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks that begin at once behave as tasks do, with both event loops."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop

from splitvisor.process.eager import eager_task

Runner = Callable[[Coroutine[Any, Any, None]], None]
DEADLINE_S = 10.0
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Runner]:
    factory = uvloop.new_event_loop if request.param == "uvloop" else None
    complaints: list[dict[str, Any]] = []

    def run(test: Coroutine[Any, Any, None]) -> None:
        async def inside() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            async with asyncio.timeout(DEADLINE_S):
                await test

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(inside())

    yield run
    gc.collect()
    assert not complaints


async def nothing() -> str:
    return "done"


async def wait_for(event: asyncio.Event) -> str:
    await event.wait()
    return "done"


def test_what_waits_for_nothing_has_ended_at_once(run: Runner) -> None:
    async def test() -> None:
        task = eager_task(nothing())
        assert task.done()
        assert task.result() == "done"
        assert await task == "done"
        assert await asyncio.wait([task]) == ({task}, set())
        told: list[object] = []
        task.add_done_callback(told.append)
        await asyncio.sleep(0)
        assert told == [task]
        assert "done" in repr(task)
        assert task not in asyncio.all_tasks()

    run(test())


def test_what_raises_at_once_has_failed(run: Runner) -> None:
    async def fail() -> None:
        raise ValueError("on purpose")

    async def test() -> None:
        task = eager_task(fail())
        assert task.done()
        with pytest.raises(ValueError, match="on purpose"):
            await task

    run(test())


def test_what_waits_goes_on_as_a_task(run: Runner) -> None:
    async def test() -> None:
        event = asyncio.Event()
        task = eager_task(wait_for(event))
        assert not task.done()
        assert task in asyncio.all_tasks()
        assert "wait_for" in repr(task)
        event.set()
        assert await task == "done"

    run(test())


def test_what_waits_and_then_raises_has_failed(run: Runner) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("on purpose")

    async def test() -> None:
        with pytest.raises(ValueError, match="on purpose"):
            await eager_task(fail())

    run(test())


def test_it_is_the_running_task_from_the_beginning_to_the_end(run: Runner) -> None:
    seen: list[asyncio.Task[Any] | None] = []

    async def look() -> None:
        seen.append(asyncio.current_task())
        await asyncio.sleep(0)
        seen.append(asyncio.current_task())
        seen.append(eager_task(look_once()))  # One within another.
        seen.append(asyncio.current_task())

    async def look_once() -> None:
        seen.append(asyncio.current_task())

    async def test() -> None:
        outer = asyncio.current_task()
        task = eager_task(look())
        assert asyncio.current_task() is outer
        await task
        inner = seen[2]
        assert seen == [task, task, inner, inner, task]
        assert inner not in (task, None)

    run(test())


def test_others_have_their_turn_once_when_it_lets_them(run: Runner) -> None:
    order: list[str] = []

    async def let_others() -> None:
        order.append("begun")
        await asyncio.sleep(0)
        order.append("goes on")

    async def test() -> None:
        task = eager_task(let_others())
        asyncio.get_running_loop().call_soon(order.append, "next turn")
        await asyncio.sleep(0)
        assert order == ["begun", "goes on", "next turn"]
        await task

    run(test())


@pytest.mark.parametrize("turns", [0, 3])
def test_what_it_waits_for_is_cancelled_with_it(run: Runner, turns: int) -> None:
    async def test() -> None:
        waits_for: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ended: list[str] = []

        async def wait() -> None:
            try:
                await waits_for
            except asyncio.CancelledError as error:
                ended.append(str(error))
                raise

        task = eager_task(wait())
        for _ in range(turns):
            await asyncio.sleep(0)
        assert task.cancel("why")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert waits_for.cancelled()
        assert ended == ["why"]
        assert task.cancelled()
        assert task.cancelling() == 1

    run(test())


def test_a_cancellation_can_be_taken_back(run: Runner) -> None:
    async def wait() -> str:
        task = asyncio.current_task()
        assert task is not None
        try:
            await asyncio.sleep(DEADLINE_S)
        except asyncio.CancelledError:
            assert task.uncancel() == 0
        await asyncio.sleep(0)
        return "aborted"

    async def test() -> None:
        task = eager_task(wait())
        task.cancel()
        assert await task == "aborted"

    run(test())


def test_what_cancels_itself_ends_where_it_waits(run: Runner) -> None:
    async def cancel_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(DEADLINE_S)

    async def cancelled() -> None:
        raise asyncio.CancelledError

    async def test() -> None:
        for begun in (cancel_itself(), cancelled()):
            task = eager_task(begun)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelled()

    run(test())


def test_a_deadline_of_its_own_ends_it(run: Runner) -> None:
    async def wait() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(DEADLINE_S)
        except TimeoutError:
            return "late"
        return "never"

    async def test() -> None:
        assert await eager_task(wait()) == "late"

    run(test())


def test_its_context_is_its_own(run: Runner) -> None:
    async def change() -> str:
        assert variable.get() == "caller"
        variable.set("inside")
        await asyncio.sleep(0)
        return variable.get()

    async def test() -> None:
        variable.set("caller")
        task = eager_task(change())
        assert variable.get() == "caller"
        assert await task == "inside"

    run(test())


def test_a_failure_that_nobody_looks_at_is_complained_of() -> None:
    complaints: list[str] = []

    async def fail() -> None:
        raise ValueError("on purpose")

    async def test() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
        eager_task(fail())
        gc.collect()

    asyncio.run(test())
    [complaint] = complaints
    assert complaint.endswith("Task exception was never retrieved")
