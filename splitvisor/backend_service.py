# SPDX-License-Identifier: GPL-2.0-or-later
"""A Backend as a service: what Backend.serve() hands to the code that runs the four services."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitvisor.backend import Backend
from splitvisor.rpc import trap_pb2_grpc

if TYPE_CHECKING:
    import grpc.aio


@dataclass(frozen=True)
class NoOptions:
    """Settings of a back end's devices come with each VM."""


class BackendModule:
    """What a service package's module would have."""

    SERVICES: tuple[str, ...] = ("splitvisor.v1.TrapService",)
    Options: type[Any] = NoOptions

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def start(self, server: grpc.aio.Server, _options: Any) -> Callable[[], Awaitable[None]]:
        """Add the servicer; the result ends the sessions."""
        servicer = self._backend.servicer()
        trap_pb2_grpc.add_TrapServiceServicer_to_server(servicer, server)
        return servicer.close


@dataclass(frozen=True)
class BackendService:
    """Runs a back end the way a service is run; see splitvisor/service_names.py."""

    backend: Backend

    @property
    def command(self) -> str:
        """The stem of its socket."""
        return self.backend.name

    @property
    def package(self) -> str:
        """Its name in logs."""
        return self.backend.name

    @property
    def summary(self) -> str:
        """What it is."""
        return "a back end of Splitvisor"

    @property
    def program(self) -> str:
        """The script that serves it."""
        return Path(sys.argv[0]).name

    def load(self) -> BackendModule:
        """What stands for its module."""
        return BackendModule(self.backend)
