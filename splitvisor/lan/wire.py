# SPDX-License-Identifier: GPL-2.0-or-later
"""A wire: what an Ethernet device is connected to, whatever is at its other end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

MAX_FRAME = 65535 + 14
"""Bytes of an Ethernet frame without its checksum; more than any device of ours sends."""

Receive = Callable[[bytes], bool]
"""Takes a frame for the device; False: it has no room now and wants it again after Wire.resume()."""


class Wire(ABC):
    """One end of a network. Frames are whole, without their frame check sequence.

    A frame that cannot be sent is dropped and counted, as on a real wire: send() never waits.
    """

    sent_dropped: int = 0
    """Frames that could not be sent."""
    name: str = ""
    """For messages: what `--net` said."""

    @abstractmethod
    async def open(self, receive: Receive) -> None:
        """Connect. receive is called for each frame that arrives, on the event loop. Raises ProblemError."""

    @abstractmethod
    def send(self, frame: bytes) -> None:
        """Send a frame, or drop and count it."""

    @abstractmethod
    def resume(self) -> None:
        """The device has room again: frames that wait are offered once more."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnect, and end what was started for it."""
