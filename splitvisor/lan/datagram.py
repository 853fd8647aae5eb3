# SPDX-License-Identifier: GPL-2.0-or-later
"""Wires that carry a frame in each datagram: QEMU's `-netdev dgram` at the other end, or a child process."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from splitvisor.errors.problem import ProblemError
from splitvisor.lan.child import Child
from splitvisor.lan.dial import FIRST_PAUSE_S, LONGEST_PAUSE_S
from splitvisor.lan.frame_reader import FrameReader
from splitvisor.lan.options import DatagramNet
from splitvisor.lan.wire import MAX_FRAME, MIN_FRAME, Receive, Wire, WireError
from splitvisor.net.addresses import Address, AddressError
from splitvisor.net.listening import check_free
from splitvisor.net.sockets import make_way
from splitvisor.process.logging import get_logger

UNSENT_FRAMES, UNSENT_BYTES = 1024, 4 << 20
"""What may wait for a slow peer."""
READY_S = 10.0
LOOK_S = 1.0
"""How often a unix socket's path is looked at, for a program that was started again."""
_SOCKET_BYTES = 4 << 20
_GONE = frozenset({errno.ECONNREFUSED, errno.ENOENT, errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE, errno.EDESTADDRREQ})
"""Nobody is at the other end; frames are dropped until somebody is."""
_log = get_logger(__name__)


class DatagramWire(Wire):
    """A wire over a descriptor that has a frame in each read and write. Subclasses open it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._socket: socket.socket | None = None
        self._reader = FrameReader(self._read, self._offer, self._misfit, self._failed)
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0

    def send(self, frame: bytes) -> None:
        """Send a frame, or drop and count it."""
        if self._socket is None or not MIN_FRAME <= len(frame) <= MAX_FRAME:
            self._sent_dropped += 1
        elif self._unsent:
            self._queue(frame)
        else:
            try:
                self._write(frame)
            except BlockingIOError:
                asyncio.get_running_loop().add_writer(self._socket, self._writable)
                self._queue(frame)

    def resume(self) -> None:
        """The device has room again."""
        self._reader.resume()

    async def close(self) -> None:
        """Disconnect."""
        self._stop()
        self._device = None

    def _begin(self, connected: socket.socket) -> None:
        """Use a socket."""
        connected.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            with suppress(OSError):
                connected.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BYTES)
        self._socket = connected
        self._reader.start(connected.fileno())

    def _stop(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._reader.stop()
            asyncio.get_running_loop().remove_writer(self._socket)
            self._socket.close()
            self._socket = None
        self._sent_dropped += len(self._unsent)
        self._unsent.clear()
        self._unsent_bytes = 0

    def _queue(self, frame: bytes) -> None:
        if len(self._unsent) >= UNSENT_FRAMES or self._unsent_bytes + len(frame) > UNSENT_BYTES:
            self._sent_dropped += 1
            return
        self._unsent.append(frame)
        self._unsent_bytes += len(frame)

    def _writable(self) -> None:
        while self._unsent:
            frame = self._unsent.popleft()
            self._unsent_bytes -= len(frame)
            try:
                self._write(frame)
            except BlockingIOError:
                self._unsent.appendleft(frame)
                self._unsent_bytes += len(frame)
                return
        if self._socket is not None:
            asyncio.get_running_loop().remove_writer(self._socket)

    def _write(self, frame: bytes) -> None:
        """Send or drop a frame. Raises BlockingIOError."""
        assert self._socket is not None
        try:
            self._socket.send(frame)
        except BlockingIOError:
            raise
        except OSError as error:
            self._sent_dropped += 1
            if error.errno in _GONE:
                self._unreachable()
        else:
            self._sent += 1
            self._sent_bytes += len(frame)

    def _unreachable(self) -> None:
        """Nobody is at the other end."""

    def _read(self, memory: bytearray) -> int:
        assert self._socket is not None
        return self._socket.recv_into(memory)

    def _failed(self, error: OSError) -> bool:
        if error.errno in _GONE:
            self._unreachable()
        return True

    @abstractmethod
    async def open(self, receive: Receive) -> None:
        """Connect."""


class SocketWire(DatagramWire):
    """Between two addresses of this host. The other end may come and go."""

    def __init__(self, net: DatagramNet) -> None:
        super().__init__(net.text)
        self._local, self._remote = net.local, net.remote
        self._connected: tuple[int, int, int] | None = None
        """Tells the unix socket at the other end from another: device, inode and, as numbers are used again, its time."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def port(self) -> int:
        """The UDP port that it has; 0 for a unix socket."""
        return 0 if self._socket is None or self._local.socket_path is not None else int(self._socket.getsockname()[1])

    async def open(self, receive: Receive) -> None:
        """Have the local address. Raises WireError."""
        self._device = receive
        self._begin(_bound(self._local))
        self._connect()
        if self._remote.socket_path is not None:
            self._look()

    async def close(self) -> None:
        """Let go of the local address."""
        was_open = self._socket is not None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await super().close()
        if was_open and self._local.socket_path is not None:
            with suppress(OSError):
                os.unlink(self._local.socket_path)

    def _connect(self) -> None:
        """Have the other end be the only one that is heard, if there is one."""
        assert self._socket is not None
        self._connected = self._found()
        with suppress(OSError):
            self._socket.connect(self._remote.socket_path or (self._remote.host, self._remote.port))

    def _found(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._remote.socket_path or "")
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_mtime_ns

    def _look(self) -> None:
        """Connect to a new socket at the other end's path: it would not be heard before this end sends."""
        found = self._found()
        if found is not None and found != self._connected:
            self._connect()
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _write(self, frame: bytes) -> None:
        try:
            super()._write(frame)
        except PermissionError:  # Another process has the address now, and takes datagrams of somebody else only.
            self._sent_dropped += 1

    def _unreachable(self) -> None:
        """Look for it again: at a unix socket's path there may be a new one."""
        self._connect()


class PairWire(DatagramWire):
    """A child at the other end of a pair of sockets; one that ends is started again.

    Args:
        name: for messages.
        command: returns how it is started, from the number of its socket.
        probe: a frame that it answers.
    """

    def __init__(self, name: str, command: Callable[[int], Sequence[str]], probe: bytes) -> None:
        super().__init__(name)
        self._command, self._probe = command, probe
        self._child: Child | None = None
        self._answered = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The child; 0: there is none."""
        return self._child.pid if self._child is not None and not self._child.exited.is_set() else 0

    async def open(self, receive: Receive) -> None:
        """Start it, and wait until it answers. Raises WireError."""
        self._device = receive
        await self._start()
        self._task = asyncio.get_running_loop().create_task(self._stay())

    async def close(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await super().close()
        if self._child is not None:
            await self._child.stop()

    async def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._answered.clear()
        with theirs:
            try:
                self._child = child = Child(self._command(theirs.fileno()), (theirs.fileno(),), ended=self._answered.set)
            except BaseException:
                ours.close()
                raise
        self._begin(ours)
        ours.send(self._probe)
        with suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                await self._answered.wait()
        if child.exited.is_set() or not self._answered.is_set():
            self._stop()
            await child.stop()
            raise WireError(f"{self.name}: {child.name}: {child.last_words}", "correct --net, or see its --help")

    async def _stay(self) -> None:
        pause = FIRST_PAUSE_S
        while True:
            assert self._child is not None
            await self._child.exited.wait()
            _log.warning("network's program ended, starting it again", network=self.name, reason=self._child.last_words)
            self._stop()
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
            try:
                await self._start()
            except ProblemError as error:
                _log.warning("network's program cannot be started", network=self.name, reason=str(error))

    def _offer(self, frame: bytes) -> bool:
        if not self._answered.is_set():
            self._answered.set()
            if frame[:6] == self._probe[6:12]:
                return True
        return super()._offer(frame)


def _bound(address: Address) -> socket.socket:
    path = address.socket_path
    try:
        if path is not None:
            check_free(address)
            make_way(path, socket.SOCK_DGRAM)
    except AddressError as error:
        raise WireError(error.problem.what, error.problem.remedy) from None
    try:
        if path is not None:
            bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            before = os.umask(0o177)
            try:
                bound.bind(path)
            finally:
                os.umask(before)
        else:
            family, _, _, _, place = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)[0]
            bound = socket.socket(family, socket.SOCK_DGRAM)
            bound.bind(place)
    except OSError as error:
        raise WireError(f"{address.text}: {error.strerror or error}", "give another address") from None
    return bound
