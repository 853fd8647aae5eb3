# SPDX-License-Identifier: GPL-2.0-or-later
"""The services, and what the package of one must have::

    # X/service.py
    SERVICES: tuple[str, ...]                     # full names of its gRPC services
    @dataclass(frozen=True) class Options         # what its command line may set; each field becomes a flag
    async def start(server, options) -> stop      # adds servicers; the result is awaited when the service ends

What start() returns is a Started when the service can be measured or traced.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

from splitvisor.process.extras import require

if TYPE_CHECKING:
    import grpc.aio

    from splitvisor.observe.metrics import Source
    from splitvisor.trap.tracing import Tracing

BACKEND_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
"""What a back end may be called."""
VIO_SERVICE = "vio_service"
"""Has the devices that are placed nowhere, and the slots of the VIO bus that nobody else has."""


class ServiceModule(Protocol):
    """What `service.py` of a service package offers."""

    SERVICES: tuple[str, ...]
    Options: type[Any]

    async def start(self, server: grpc.aio.Server, options: Any) -> Callable[[], Awaitable[None]]:
        """Add the servicers; the result is awaited when the service ends."""


class Servable(Protocol):
    """What can be run as a service: one of ours, or a back end of somebody else's."""

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
    """A service that runs: how to stop it, and how to look into it. What nobody wants to see is not measured."""

    stop: Callable[[], Awaitable[None]]
    measure: Sequence[Callable[[], Source]] = ()
    """Each begins to measure and returns what is read at every scrape; called at most once, before the server starts."""
    trace: Sequence[Callable[[Tracing], None]] = ()
    """Each is given what records spans; called at most once, before the server starts."""

    async def __call__(self) -> None:
        """Stop."""
        await self.stop()


@dataclass(frozen=True)
class ServiceName:
    """One of the services."""

    command: str
    """After `splitvisor service`; also the stem of its socket."""
    package: str
    """The Python package, which is also its name in logs, offers and errors."""
    summary: str
    extra: str = field(default="run", kw_only=True)
    """What must be installed to run it."""

    @property
    def program(self) -> str:
        """How it was called, for its help and its errors."""
        return f"splitvisor service {self.command}"

    def load(self) -> ServiceModule:
        """Import it. Raises MissingExtraError."""
        require(self.extra)
        return cast(ServiceModule, importlib.import_module(f"{self.package}.service"))


SERVICE_NAMES: tuple[ServiceName, ...] = (
    ServiceName("cpu", "cpu_service", "vCPUs, RAM, page table, interrupts; the machine's control"),
    ServiceName("hcall", "hcall_service", "RTAS, platform hypercalls, the device tree's store"),
    ServiceName("vio", VIO_SERVICE, "the VIO bus: terminals, nvram, DMA windows; consoles"),
    ServiceName("of-client", "of_client_service", "Open Firmware's client interface"),
)
"""What a VM runs on."""

ALL_SERVICE_NAMES: tuple[ServiceName, ...] = (
    *SERVICE_NAMES,
    ServiceName(
        "gateway", "gateway_service", "the web page: consoles, status and device trees of any number of VMs", extra="gateway"
    ),
    ServiceName("fault", "splitvisor.faults", "a proxy before a back end that makes faults happen"),
)
"""Those, what people reach them through, and what tests put between them."""
