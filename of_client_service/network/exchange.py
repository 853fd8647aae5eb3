# SPDX-License-Identifier: GPL-2.0-or-later
"""A conversation with servers, as a generator: it yields until when it waits, and is sent a datagram or, at that time, None.

What it sends is in its host's outbox, whoever carries it on.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

from of_client_service.network.packets import Arp, Datagram

Arrival = Datagram | Arp
Result = TypeVar("Result")
Exchange = Generator[float, Arrival | None, Result]
"""Yields a time of the host's clock, in seconds."""

MAX_SHOWN = 100


class NetworkError(Exception):
    """A network, or who is in it, does not do what is needed; the text says what, for a line on the console."""


def shown(text: str) -> str:
    """Return what somebody else has sent as it may stand in a line of the console: short, and without control characters."""
    printable = "".join(character if " " <= character <= "~" else "?" for character in text[: MAX_SHOWN + 1])
    return printable if len(printable) <= MAX_SHOWN else f"{printable[:MAX_SHOWN]}..."
