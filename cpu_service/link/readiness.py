# SPDX-License-Identifier: GPL-2.0-or-later
"""Waits for descriptors with the resolution of the host's clock.

Python's poll() rounds up to milliseconds, too much for a guest's timers, and its select() takes no descriptor above 1023.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Sequence


class _PollFd(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


_ppoll = ctypes.CDLL(None, use_errno=True).ppoll
_ppoll.restype = ctypes.c_int
_ppoll.argtypes = (ctypes.POINTER(_PollFd), ctypes.c_ulong, ctypes.POINTER(_Timespec), ctypes.c_void_p)


def wait_ready(wanted: Sequence[tuple[int, int]], timeout: float) -> frozenset[int]:
    """Return which descriptors are ready, or closed by the peer, after timeout seconds at most; none after a signal.

    wanted: each descriptor with select.POLLIN, POLLOUT or both (ppoll(2)). Raises OSError.
    """
    polled = _polled(tuple(wanted))
    seconds, part = divmod(max(0, int(timeout * 1e9)), 1_000_000_000)
    count = _ppoll(polled, len(wanted), _Timespec(seconds, part), None)
    if count < 0:
        if (number := ctypes.get_errno()) == errno.EINTR:
            return frozenset()
        raise OSError(number, os.strerror(number))
    return frozenset(each.fd for each in polled if each.revents) if count else frozenset()


_thread = threading.local()
"""What was waited for last, and the structures for it: mostly it is the same again."""


def _polled(wanted: tuple[tuple[int, int], ...]) -> ctypes.Array[_PollFd]:
    if getattr(_thread, "wanted", None) != wanted:
        _thread.wanted = wanted
        _thread.polled = (_PollFd * len(wanted))(*(_PollFd(fd, events, 0) for fd, events in wanted))
    polled: ctypes.Array[_PollFd] = _thread.polled
    return polled
