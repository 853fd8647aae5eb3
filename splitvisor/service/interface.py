# SPDX-License-Identifier: GPL-2.0-or-later
"""What can run as a service, and what the package of one must have::

    # X/service.py
    SERVICES: tuple[str, ...]                     # full names of its gRPC services
    @dataclass(frozen=True) class Options         # what its command line may set; each field becomes a flag
    async def start(server, options) -> stop      # adds servicers; the result is awaited when the service ends

What start() returns is a Started when the service can be measured or traced.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import grpc.aio

    from splitvisor.observe.metrics import Source
    from splitvisor.trap.tracing import Tracing


class ServiceModule(Protocol):
    """What `service.py` of a service package offers."""

    SERVICES: tuple[str, ...]
    Options: type[Any]

    async def start(self, server: grpc.aio.Server, options: Any) -> Callable[[], Awaitable[None]]:
        """Add the servicers; the result is awaited when the service ends."""


class Servable(Protocol):
    """A program that can run as a service: one of Splitvisor's own, or any other back end."""

    @property
    def command(self) -> str:
        """The stem of its socket."""

    @property
    def package(self) -> str:
        """Its name in logs, offers and errors."""

    @property
    def summary(self) -> str:
        """What it is, in a few words for its help."""

    @property
    def program(self) -> str:
        """How it was called, for its help and its errors."""

    def load(self) -> ServiceModule:
        """Its module, or what stands for one. Raises MissingExtraError."""


@dataclass(frozen=True)
class Started:
    """A running service: functions to stop and inspect it. Only requested figures are measured."""

    stop: Callable[[], Awaitable[None]]
    measure: Sequence[Callable[[], Source]] = ()
    """Each begins to measure and returns what is read at every scrape; called at most once, before the server starts."""
    trace: Sequence[Callable[[Tracing], None]] = ()
    """Each is given what records spans; called at most once, before the server starts."""

    async def __call__(self) -> None:
        """Stop."""
        await self.stop()
