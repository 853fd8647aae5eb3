# SPDX-License-Identifier: GPL-2.0-or-later
"""`--net tap=IF`: a tap device of this host, which somebody has made and connected; it is neither made nor changed here."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from contextlib import suppress

from splitvisor.lan.frame_reader import FrameReader
from splitvisor.lan.options import TapNet
from splitvisor.lan.wire import MAX_FRAME, MIN_FRAME, Receive, Wire, WireError

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
        self._reader = FrameReader(self._read, self._offer, self._misfit, self._failed)

    async def open(self, receive: Receive) -> None:
        """Attach to it. Raises WireError."""
        self._device = receive
        self._tap = _attach(self._interface)
        self._reader.start(self._tap)

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
        self._reader.resume()

    async def close(self) -> None:
        """Detach from it."""
        if self._tap >= 0:
            self._reader.stop()
            os.close(self._tap)
            self._tap, self._device = -1, None

    def _read(self, memory: bytearray) -> int:
        return os.readv(self._tap, [memory])

    def _failed(self, error: OSError) -> bool:
        if error.errno != errno.EIO:  # With EIO it is down, and may be up again.
            self._reader.stop()  # It has been deleted.
        return False


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
