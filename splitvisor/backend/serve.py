# SPDX-License-Identifier: GPL-2.0-or-later
"""A back end as a program: `Backend.serve()` runs it in the same way as the four services."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from splitvisor.declarations.session import Session, Vm
from splitvisor.process.signals import end_quietly
from splitvisor.service.names import BACKEND_NAME, BACKEND_NAME_RULE

if TYPE_CHECKING:
    import grpc.aio

    from splitvisor.trap.server import TrapServicer


@dataclass(frozen=True)
class NoOptions:
    """Settings of a back end's devices come with each VM."""


class Backend:
    """A back end: serves one kind of session to any number of VMs.

    Args:
        name: 1 to 63 of a-z, 0-9, '-' and '_', a letter first. Logs, errors and `splitvisor run --backend
            NAME=ADDRESS` use it.
        factory: creates the session of a VM; usually a Session class. It may raise ValueError to refuse the VM, with the reason.

    Raises ValueError for an invalid name.
    """

    SERVICES: tuple[str, ...] = ("splitvisor.trap.v1.TrapService",)
    """Full names of the gRPC services that start() adds."""
    Options: type[Any] = NoOptions
    """Settings of the command line: a dataclass."""

    def __init__(self, name: str, factory: Callable[[Vm], Session]) -> None:
        if not BACKEND_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a name for a back end; give {BACKEND_NAME_RULE}")
        self.name, self.factory = name, factory

    def servicer(self) -> TrapServicer:
        """Return the gRPC servicer of TrapService, for programs with their own server; they must close() it."""
        from splitvisor.trap.server import TrapServicer  # gRPC is slow to load, and a module that only declares does not need it

        return TrapServicer(self.name, self.factory)

    async def start(self, server: grpc.aio.Server, options: Any) -> Callable[[], Awaitable[None]]:
        """Add the servicers to a server before it starts. Returns a function that ends the sessions. options: an Options."""
        from splitvisor.rpc import trap_pb2_grpc

        servicer = self.servicer()
        trap_pb2_grpc.add_TrapServiceServicer_to_server(servicer, server)
        return servicer.close

    def serve(self, arguments: Sequence[str] | None = None) -> NoReturn:
        """Run as a service until SIGTERM, SIGINT or SIGHUP, then exit: 0, 2 for bad usage, 4 if it could not start.

        It listens at --listen, or at NAME.sock in this user's directory for services, and has health checks, reflection and logs
        like every service of Splitvisor; --help lists the flags.

        Args:
            arguments: the flags; by default those of this process.
        """
        end_quietly()  # Before gRPC and its kin are loaded.
        from splitvisor.process.streams import standard_streams

        service = BackendService(self)
        with standard_streams(service.program):
            from splitvisor.service.main import run

            sys.exit(run(service, sys.argv[1:] if arguments is None else arguments))


@dataclass(frozen=True)
class BackendService:
    """Runs a back end the way a service is run; see splitvisor/service/interface.py."""

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

    def load(self) -> Backend:
        """What stands for its module."""
        return self.backend
