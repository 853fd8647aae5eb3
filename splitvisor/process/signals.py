# SPDX-License-Identifier: GPL-2.0-or-later
"""What SIGINT, SIGTERM and SIGHUP do to a process of ours: they end it at once, with the status that shells use, without frames.

Python turns SIGINT into an exception that may come at any instruction, in the middle of an import too, where it prints what was
being imported. So a signal ends the process right where it is, which every entry point asks for before all else: end_quietly().
What must put something in order first says so: Unwinding for blocking code, run() for asyncio. A second signal does not wait.
"""

from __future__ import annotations

# The C module: whatever else is loaded before the first end_quietly() is time in which a signal still prints frames.
import _signal  # type: ignore[import-not-found]
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any, TypeVar

    _T = TypeVar("_T")

ENDING = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP)
"""Signals that ask a process to end."""
_BASE = 128
"""Shells report a process that a signal ended with this and the signal's number."""


def end_quietly() -> None:
    """Let the signals end this process from now on. One that is ignored, as nohup and background jobs have it, stays ignored.

    One that was blocked counts now, which is how a script that starts this program keeps the interpreter's own start quiet.
    """
    _handle(_end)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, ENDING)


class Kept:
    """A context after which signals do what they did before: an event loop that handles one leaves Python's handlers behind."""

    def __enter__(self) -> None:
        self._before = [(number, _signal.getsignal(number)) for number in ENDING]

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before:
            _signal.signal(number, handler)


class Unwinding(Kept):
    """A context in which the first signal raises SystemExit, so that `finally` clauses run. For the main thread."""

    def __enter__(self) -> None:
        super().__enter__()
        _handle(_unwind)


class EndingAfter(Kept):
    """A context in which a signal ends this process once something is done: for blocking code under an event loop.

    Args:
        action: is given the exit status.
    """

    def __init__(self, action: Callable[[int], object]) -> None:
        self._action = action

    def __enter__(self) -> None:
        super().__enter__()

        def end(number: int, _frame: object) -> None:
            end_quietly()
            self._action(_BASE + number)
            _end(number)

        _handle(end)


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine in a loop of its own. The first signal cancels it; then SystemExit is raised. For the main thread."""
    import asyncio  # most entry points go on to something else

    received: list[int] = []

    async def until_signal() -> _T:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None

        def stop(number: int) -> None:
            if received:
                _end(number)
            received.append(number)
            task.cancel()

        for number in handled_signals():
            loop.add_signal_handler(number, stop, number)
        return await work

    with Kept():
        try:
            return asyncio.run(until_signal())
        except asyncio.CancelledError:
            if not received:
                raise
            raise SystemExit(_BASE + received[0]) from None


def handled_signals() -> list[int]:
    """Return the ending signals that are not ignored: a process under nohup outlives its terminal."""
    return [number for number in ENDING if _signal.getsignal(number) != _signal.SIG_IGN]


def _handle(handler: Callable[[int, Any], None]) -> None:
    for number in handled_signals():
        _signal.signal(number, handler)


def _end(number: int, _frame: object = None) -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # Closed, full, or in the middle of a write: nobody is left who would care.
            continue
    os._exit(_BASE + number)


def _unwind(number: int, _frame: object = None) -> None:
    end_quietly()
    raise SystemExit(_BASE + number)
