# SPDX-License-Identifier: GPL-2.0-or-later
"""This side of a terminal session: file descriptors that may be terminals, pipes or files, and raw mode.

Descriptors stay blocking, because others may share them (O_NONBLOCK belongs to the open file, not to us): nothing is read or
written before poll says that it can be.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import signal
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from splitvisor.process.streams import OutputError

WRITE_BYTES = 4096
"""PIPE_BUF: what a pipe takes without blocking once poll says that it is writable."""

_INPUT_ENDS = frozenset({errno.EIO, errno.EBADF, errno.ECONNRESET})
"""What a read says once no more input can come: the terminal or the peer has hung up; or it was never open for reading, as nohup
leaves standard input."""
_DEADLY_SIGNALS = (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM)


class TextWatch:
    """Finds a text in a stream that arrives in pieces."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._tail = b""

    def found(self, data: bytes) -> bool:
        """Take the next piece; True when the text ends in it or lies in it."""
        window = self._tail + data
        keep = len(self._text) - 1
        self._tail = window[-keep:] if keep else b""
        return self._text in window


async def read_some(descriptor: int, limit: int) -> bytes:
    """Return 1 to limit bytes when there are some, b"" at the end of input (see _INPUT_ENDS). Raises OSError."""
    while True:
        await _ready(descriptor, select.POLLIN)
        try:
            return os.read(descriptor, limit)
        except BlockingIOError:
            continue
        except OSError as error:
            if error.errno not in _INPUT_ENDS:
                raise
            return b""


async def write_all(descriptor: int, data: bytes) -> None:
    """Write everything. Raises OutputError."""
    view = memoryview(data)
    while view:
        await _ready(descriptor, select.POLLOUT)
        try:
            view = view[os.write(descriptor, view[:WRITE_BYTES]) :]
        except BlockingIOError:
            continue
        except OSError as error:
            raise OutputError(error) from error


async def reader_gone(descriptor: int) -> None:
    """Wait until the other end of a pipe or socket is closed or a terminal hangs up; wait forever for a file."""
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    with select.epoll() as watch:
        try:
            watch.register(descriptor, 0)  # Errors and hang-ups are always reported, and nothing else.
        except PermissionError:
            await gone.wait()
        loop.add_reader(watch.fileno(), gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(watch.fileno())


async def _ready(descriptor: int, event: int) -> None:
    """Wait until poll reports an event or an error, which the next read or write raises."""
    poll = select.poll()
    poll.register(descriptor, event)
    if poll.poll(0):
        await asyncio.sleep(0)  # A descriptor that is always ready must not keep the others from running.
        return
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    add: Callable[..., Any] = loop.add_reader if event == select.POLLIN else loop.add_writer
    remove: Callable[[int], bool] = loop.remove_reader if event == select.POLLIN else loop.remove_writer
    add(descriptor, wake)
    try:
        await ready
    finally:
        remove(descriptor)


@contextmanager
def raw_mode(descriptor: int, *, signals: bool = False) -> Iterator[None]:
    """Pass every key on as it is typed, while the context lasts; does nothing when the descriptor is no terminal.

    signals: `^C` and the like are signals still, and output is as before.

    The terminal's modes come back on every way out, death by SIGHUP, SIGQUIT or SIGTERM included unless the program handles
    those itself. After a stop (SIGSTOP, then SIGCONT) raw mode is set again.
    """
    if not os.isatty(descriptor):
        yield
        return
    saved = termios.tcgetattr(descriptor)

    def restore() -> None:
        termios.tcsetattr(descriptor, termios.TCSANOW, saved)

    def die(number: int, frame: FrameType | None) -> None:
        restore()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def set_mode() -> None:
        if signals:
            tty.setcbreak(descriptor, termios.TCSANOW)
        else:
            _set_raw(descriptor)

    def resume(number: int, frame: FrameType | None) -> None:
        set_mode()

    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        wanted = {**dict.fromkeys(_DEADLY_SIGNALS, die), signal.SIGCONT: resume}
        handlers = {number: handler for number, handler in wanted.items() if signal.getsignal(number) == signal.SIG_DFL}
        for number, handler in handlers.items():
            signal.signal(number, handler)
    try:
        set_mode()
        yield
    finally:
        restore()
        for number in handlers:
            signal.signal(number, signal.SIG_DFL)


def _set_raw(descriptor: int) -> None:
    iflag, oflag, cflag, lflag, ispeed, ospeed, cc = termios.tcgetattr(descriptor)
    iflag &= ~(termios.BRKINT | termios.ICRNL | termios.IGNCR | termios.INLCR | termios.INPCK | termios.ISTRIP)
    iflag &= ~(termios.IXON | termios.PARMRK)
    oflag &= ~termios.OPOST
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN | termios.ISIG)
    cc[termios.VMIN] = 1
    cc[termios.VTIME] = 0
    termios.tcsetattr(descriptor, termios.TCSANOW, [iflag, oflag, cflag, lflag, ispeed, ospeed, cc])
