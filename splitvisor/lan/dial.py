# SPDX-License-Identifier: GPL-2.0-or-later
"""The end of a connection that connects, and does so again whenever the connection is gone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

from splitvisor.errors.problem import ProblemError
from splitvisor.lan.link import FrameLink
from splitvisor.lan.tls import WireTls
from splitvisor.lan.wire import Receive
from splitvisor.net.addresses import Address
from splitvisor.net.channels import explain_failure
from splitvisor.process.logging import get_logger

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 5.0
"""Between attempts: each pause is twice as long as the one before."""
ATTEMPT_S = 10.0
STABLE_S = 1.0
"""A connection that holds so long is one: the next pause is the first again."""
_log = get_logger(__name__)

MakeLink = Callable[[], FrameLink]
Dial = Callable[[MakeLink], Awaitable[FrameLink]]
"""Makes a connection and has the link be its protocol. Raises OSError or ProblemError."""


def dial_address(address: Address, tls: WireTls | None) -> Dial:
    """Return what connects to an address."""

    async def dial(make: MakeLink) -> FrameLink:
        loop = asyncio.get_running_loop()
        if address.socket_path is not None:
            _, link = await loop.create_unix_connection(make, address.socket_path)
        elif tls is None:
            _, link = await loop.create_connection(make, address.host, address.port)
        else:
            context = tls.client()
            _, link = await loop.create_connection(make, address.host, address.port, ssl=context, ssl_handshake_timeout=ATTEMPT_S)
        return link

    return dial


class Dialler:
    """Keeps one connection.

    Args:
        name: of the wire, for the log.
        dial: connects.
        receiver: returns what takes the frames of a new connection.
        tls: looks at the peer's certificate; None: it has none.
        gained: is called when there is a connection, before its first frame.
        gone: is called when that is gone.
    """

    port = 0
    """It listens on none."""

    def __init__(
        self,
        name: str,
        dial: Dial,
        receiver: Callable[[FrameLink], Receive],
        tls: WireTls | None = None,
        gained: Callable[[FrameLink], None] = lambda _link: None,
        gone: Callable[[FrameLink], None] = lambda _link: None,
    ) -> None:
        self.link: FrameLink | None = None
        """The connection; None: there is none now."""
        self._name, self._dial, self._receiver, self._tls = name, dial, receiver, tls
        self._gained, self._gone = gained, gone
        self._lost = asyncio.Event()
        self._why = ""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Connect, and stay connected."""
        self._task = asyncio.get_running_loop().create_task(self._stay_connected())

    async def connect(self) -> None:
        """Connect once. Raises OSError or ProblemError."""
        self._lost.clear()
        # Python 3.11's wait_for() can lose a cancellation, and close() would wait for ever.
        async with asyncio.timeout(ATTEMPT_S):
            await self._dial(self._make)
        if self.link is None:
            raise ConnectionError(self._why)

    async def close(self) -> None:
        """Disconnect."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self.link is not None:
            self.link.close()
            await self._lost.wait()

    def _make(self) -> FrameLink:
        return FrameLink(self._receiver, self._admit, self._ended)

    def _admit(self, link: FrameLink, transport: asyncio.Transport) -> None:
        if self._tls is not None:
            self._tls.check(transport)
        self.link = link
        self._gained(link)

    def _ended(self, link: FrameLink, why: Exception | None) -> None:
        self._why = str(why) if why is not None else "the other end closed the connection"
        if self.link is link:
            self.link = None
            self._gone(link)
        self._lost.set()

    async def _stay_connected(self) -> None:
        pause, said = FIRST_PAUSE_S, ""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                if self.link is None:
                    await self.connect()
                _log.info("network connected", network=self._name)
                said = ""
                await self._lost.wait()
                reason = self._why
            except (OSError, ProblemError) as error:
                reason = _why_not(error)
            if reason != said:
                _log.warning("network not connected, trying again", network=self._name, reason=reason)
                said = reason
            pause = FIRST_PAUSE_S if loop.time() - began > STABLE_S else pause
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)


def _why_not(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {ATTEMPT_S:.0f} s"
    if isinstance(error, socket.gaierror):
        return f"no such host ({error.strerror})"
    text = str(error) or type(error).__name__
    return explain_failure(text, text)
