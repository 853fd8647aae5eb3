# SPDX-License-Identifier: GPL-2.0-or-later
"""An exchange of a host over a device's wire, a round at a time, since one call of the firmware must not last long."""

from __future__ import annotations

from typing import Generic

from of_client_service.network.exchange import Arrival, Exchange, Result
from of_client_service.network.host import Host
from of_client_service.network.port import FramePort


class Conversation(Generic[Result]):
    """An exchange that is under way.

    Args:
        host: who has it.
        port: the wire.
        exchange: what is said.
    """

    def __init__(self, host: Host, port: FramePort, exchange: Exchange[Result]) -> None:
        self._host, self._port, self._exchange = host, port, exchange
        self._until: float | None = None
        """When it is not going to wait longer; None: it has not begun."""
        self._results: list[Result] = []

    @property
    def result(self) -> Result:
        """What it ended with."""
        [result] = self._results
        return result

    async def round(self, until: float) -> bool:
        """Send, receive and go on, once; begin no wait beyond a time of the host's clock. Returns whether it is over.

        Raises what the exchange does, and NetworkError. Only inside a handler.
        """
        if self._until is None:
            await self._resume(None)
            return bool(self._results)
        outbox, clock = self._host.outbox, self._host.clock
        frame = outbox.popleft() if outbox else b""
        seconds = 0.0 if outbox else min(self._until, until) - clock()
        received = await self._port.exchange(frame, seconds)
        arrival = self._host.receive(received) if received else None
        if arrival is not None:
            await self._resume(arrival)
        # Also in a flood: what arrives keeps nobody waiting for ever.
        if not self._results and clock() >= self._until:
            await self._resume(None)
        return bool(self._results)

    async def _resume(self, arrival: Arrival | None) -> None:
        try:
            self._until = self._exchange.send(arrival)
        except StopIteration as ended:
            self._results.append(ended.value)
            await self._send_rest()
        except Exception:
            await self._send_rest()
            raise

    async def _send_rest(self) -> None:
        """Send what the exchange has said at its end."""
        while self._host.outbox:
            await self._port.exchange(self._host.outbox.popleft())
