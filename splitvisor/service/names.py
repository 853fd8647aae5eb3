# SPDX-License-Identifier: GPL-2.0-or-later
"""The services that Splitvisor has, and what back ends may be called."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass, field
from typing import cast

from splitvisor.process.extras import require
from splitvisor.service.interface import ServiceModule

BACKEND_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
"""What a back end may be called."""
BACKEND_NAME_RULE = "1 to 63 of a-z, 0-9, '-' and '_', a letter first"
"""The same for messages."""
VIO_SERVICE = "vio_service"
"""Owns devices without a back end, and the slots of the VIO bus that no other back end has."""


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
