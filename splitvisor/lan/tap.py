# SPDX-License-Identifier: GPL-2.0-or-later
"""`--net tap=IF`: a tap device of this host, which somebody has made and connected; it is neither made nor changed here."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import struct
from contextlib import suppress

from splitvisor.lan.options import TapNet
from splitvisor.lan.wire import MAX_FRAME, MIN_FRAME, Receive, Wire, WireError

BATCH = 64
"""Frames that are read at a time; then others have a turn."""
_DEVICE = "/dev/net/tun"
_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_IFREQ = struct.Struct("16sH22x")
_WHY = {
    errno.EBUSY: ("another process has it", "end that, or give a device of its own"),
    errno.EPERM: ("this user may not have it", "have it made: ip tuntap add dev {name} mode tap user USER"),
    errno.EINVAL: (
        "it is no tap device, or one with several queues or a header",
        "ip tuntap add dev {name} mode tap",
    ),
}


class TapWire(Wire):
    """A tap device. The kernel holds what the device has no room for, as long as the tap's queue is (`ip link`: qlen)."""

    def __init__(self, net: TapNet) -> None:
        super().__init__(net.text)
        self._interface = net.interface
        self._tap = -1
        self._device: Receive | None = None
        self._held: bytes | None = None
        """A frame that the device had no room for; nothing is read while there is one."""
        self._memory = bytearray(MAX_FRAME + 1)
        self._view = memoryview(self._memory)

    async def open(self, receive: Receive) -> None:
        """Attach to it. Raises WireError."""
        self._device = receive
        self._tap = _attach(self._interface)
        asyncio.get_running_loop().add_reader(self._tap, self._readable)

    def send(self, frame: bytes) -> None:
        """Send a frame, or drop and count it: also while the device is down."""
        try:
            if self._tap < 0 or not MIN_FRAME <= len(frame) <= MAX_FRAME:
                raise BlockingIOError
            os.write(self._tap, frame)
        except OSError:
            self._sent_dropped += 1
        else:
            self._sent += 1
            self._sent_bytes += len(frame)

    def resume(self) -> None:
        """The device has room again."""
        if self._held is None or self._tap < 0:
            return
        frame, self._held = self._held, None
        if self._offer(frame):
            asyncio.get_running_loop().add_reader(self._tap, self._readable)
        else:
            self._held = frame

    async def close(self) -> None:
        """Detach from it."""
        if self._tap >= 0:
            asyncio.get_running_loop().remove_reader(self._tap)
            os.close(self._tap)
            self._tap, self._held, self._device = -1, None, None

    def _readable(self) -> None:
        for _ in range(BATCH):
            try:
                count = os.readv(self._tap, [self._memory]) if self._tap >= 0 else 0
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EIO):  # EIO: it is down, and may be up again.
                    asyncio.get_running_loop().remove_reader(self._tap)  # It has been deleted.
                return
            if not count:
                return
            if not MIN_FRAME <= count <= MAX_FRAME:
                self._received_dropped += 1
                continue
            frame = bytes(self._view[:count])
            if not self._offer(frame):
                self._held = frame
                asyncio.get_running_loop().remove_reader(self._tap)
                return

    def _offer(self, frame: bytes) -> bool:
        if self._device is None or not self._device(frame):
            return False
        self._received += 1
        self._received_bytes += len(frame)
        return True


def _attach(name: str) -> int:
    with suppress(OSError):
        # The kernel would make one that is not there, and take it away again with this process.
        socket.if_nametoindex(name)
        return _attach_existing(name)
    raise WireError(f"tap: there is no network device {name}", f"make it: ip tuntap add dev {name} mode tap user USER")


def _attach_existing(name: str) -> int:
    try:
        descriptor = os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise WireError(f"tap: {_DEVICE}: {error.strerror}", "load the module tun, or give this process the device") from None
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, _IFREQ.pack(os.fsencode(name), _IFF_TAP | _IFF_NO_PI))
        # Frames are to arrive as the wire has them: whole and with their checksums.
        fcntl.ioctl(descriptor, _TUNSETOFFLOAD, 0)
    except OSError as error:
        os.close(descriptor)
        what, remedy = _WHY.get(error.errno or 0, (str(error.strerror), "see `ip -d link show {name}`"))
        raise WireError(f"tap: {name}: {what}", remedy.format(name=name)) from None
    return descriptor
