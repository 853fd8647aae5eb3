# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks that begin at once: a coroutine that waits for nothing has ended when its task is made, without a turn of the event loop.

Python 3.12 has such tasks. Before, the coroutine is run by hand until it waits for the first time, with a task of ours as the
running one; only then that becomes a task of the event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

_T = TypeVar("_T")


class _Begun(Coroutine[Any, Any, _T]):
    """A coroutine that waits already: for what it waits, the task is told first.

    Args:
        coroutine: the rest of it.
        waits_for: what it has yielded.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, _T], waits_for: Any) -> None:
        self._coroutine, self._waits_for = coroutine, waits_for
        self._is_told = waits_for is None  # It only lets others have their turn, and they had it when the task is stepped.
        self.__qualname__ = getattr(coroutine, "__qualname__", "")
        """How a task that is shown names it."""

    def send(self, value: Any) -> Any:
        """See Coroutine."""
        if self._is_told:
            return self._coroutine.send(value)
        self._is_told = True
        waits_for, self._waits_for = self._waits_for, None
        return waits_for

    def throw(self, kind: Any, value: BaseException | object | None = None, trace: TracebackType | None = None) -> Any:
        """See Coroutine. A task that is cancelled before it is told cancels what it waits for, as any other does."""
        waits_for, self._waits_for, self._is_told = self._waits_for, None, True
        if waits_for is not None:
            waits_for.cancel()
        return self._coroutine.throw(value if isinstance(value, BaseException) else kind)

    def close(self) -> None:
        """See Coroutine."""
        self._coroutine.close()

    def __await__(self) -> Any:
        raise TypeError("a coroutine that a task runs already")


class _NoStep:
    """Stands in for the event loop while a task is made that takes its first step by itself."""

    def call_soon(self, *_: object, **__: object) -> None:
        """That would be the first step."""

    def get_debug(self) -> bool:
        """See AbstractEventLoop."""
        return False


_NO_STEP: Any = _NoStep()


class _EagerTask(asyncio.Task[_T]):
    """The task, for Python 3.11. What makes a future or a task anew is __init__(); both leave the rest as it is."""

    def __init__(self, coroutine: Coroutine[Any, Any, _T], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(coroutine, loop=_NO_STEP)
        asyncio.Future.__init__(self, loop=loop)
        outer = asyncio.current_task(loop)
        if outer is not None:
            asyncio.tasks._leave_task(loop, outer)
        asyncio.tasks._enter_task(loop, self)
        context = contextvars.copy_context()
        try:
            waits_for = context.run(coroutine.send, None)
        except StopIteration as end:
            asyncio.Future.set_result(self, end.value)
        except asyncio.CancelledError:
            asyncio.Future.cancel(self)
        except BaseException as error:
            asyncio.Future.set_exception(self, error)
            if not isinstance(error, Exception):
                raise
        else:
            cancelled = self.cancelling()
            context.run(super().__init__, _Begun(coroutine, waits_for), loop=loop, name=self.get_name())
            for _ in range(cancelled):
                self.cancel()
        finally:
            asyncio.tasks._leave_task(loop, self)
            if outer is not None:
                asyncio.tasks._enter_task(loop, outer)


def eager_task(coroutine: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
    """Return a task of the running event loop that has begun. It has ended, unless it waits for something."""
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        return asyncio.Task(coroutine, loop=loop, eager_start=True)
    return _EagerTask(coroutine, loop)
