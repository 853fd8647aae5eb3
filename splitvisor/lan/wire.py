# SPDX-License-Identifier: GPL-2.0-or-later
"""A wire: what an Ethernet device is connected to, whatever is at its other end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from splitvisor.errors.problem import ProblemError

MIN_FRAME = 14
"""Bytes of an Ethernet header: destination, source and type."""
MAX_FRAME = 65535 + MIN_FRAME
"""Bytes of an Ethernet frame without its checksum; more than any device of ours sends."""

Receive = Callable[[bytes], bool]
"""Takes a frame for the device; False: it has no room now and wants it again after Wire.resume()."""


class WireError(ProblemError):
    """A wire cannot be connected; the message says why and what to do."""


@dataclass(frozen=True)
class Counters:
    """What went over a wire, as its device sees it. A frame that is dropped is neither sent nor received."""

    sent: int = 0
    sent_bytes: int = 0
    sent_dropped: int = 0
    received: int = 0
    received_bytes: int = 0
    received_dropped: int = 0


class Wire(ABC):
    """One end of a network. Frames are whole, without their frame check sequence.

    A frame that cannot be sent is dropped and counted, as on a real wire: send() never waits. So is one in either direction that
    has fewer than MIN_FRAME or more than MAX_FRAME bytes.

    Args:
        name: for messages: what `--net` said.
    """

    ends_tcp = False
    """Whoever is at the other end ends TCP, as a proxy, on this host: segments may be longer than any MTU, up to what IP allows,
    nobody looks at TCP's checksums there, and those of segments that arrive are right."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._device: Receive | None = None
        """Takes frames; None: the wire is not open."""
        self._sent = self._sent_bytes = self._sent_dropped = 0
        self._received = self._received_bytes = self._received_dropped = 0

    @property
    def counters(self) -> Counters:
        """What went over it so far."""
        return Counters(
            self._sent, self._sent_bytes, self._sent_dropped, self._received, self._received_bytes, self._received_dropped
        )

    @abstractmethod
    async def open(self, receive: Receive) -> None:
        """Connect. receive is called for each frame that arrives, on the event loop, also before this ends. Raises WireError."""

    @abstractmethod
    def send(self, frame: bytes) -> None:
        """Send a frame, or drop and count it."""

    @abstractmethod
    def resume(self) -> None:
        """The device has room again: frames that wait are offered once more."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnect, and end what was started for it. More than once does nothing."""

    def _offer(self, frame: bytes) -> bool:
        """Give the device a frame, and count it if the device takes it; see Receive."""
        if self._device is None or not self._device(frame):
            return False
        self._received += 1
        self._received_bytes += len(frame)
        return True

    def _misfit(self) -> None:
        """Drop and count a frame that arrived with an impossible length."""
        self._received_dropped += 1
