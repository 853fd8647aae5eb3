# SPDX-License-Identifier: GPL-2.0-or-later
"""How services that run already are named: "cpu=unix:/run/cpu.sock,vio=127.0.0.1:7002", in --connect and in the environment."""

from __future__ import annotations

from collections.abc import Sequence

from splitvisor.errors.similar import did_you_mean
from splitvisor.machine.config import BackendAddress, ConfigError
from splitvisor.net.addresses import AddressError
from splitvisor.net.tls_files import check_address
from splitvisor.service.names import SERVICE_NAMES

CONNECT_VARIABLE = "SPLITVISOR_CONNECT"
"""Environment: where services are, for every command that does not get their addresses as flags."""


def parse_connect(values: Sequence[str], where: str = "splitvisor run: --connect") -> dict[str, str]:
    """Return gRPC targets by service from "NAME=ADDRESS,NAME=ADDRESS" texts.

    Args:
        values: the texts; an empty one names nothing.
        where: what they were given with, for errors.

    Raises ConfigError.
    """
    known = [name.command for name in SERVICE_NAMES]
    targets: dict[str, str] = {}
    for item in ",".join(filter(None, values)).split(",") if any(values) else ():
        name, _, address = item.strip().partition("=")
        if name not in known:
            raise ConfigError(where, "", f"{name!r} is not a service", did_you_mean(name, known) or f"known: {', '.join(known)}")
        if not address:
            raise ConfigError(where, "", f"{name} has no address", f"give {name}=unix:/path or {name}=host:port")
        if name in targets:
            raise ConfigError(where, "", f"{name} is given twice", "give each service once")
        try:
            targets[name] = check_address(address)
        except AddressError as error:
            raise ConfigError(where, "", error.problem.what, error.problem.remedy) from None
    return targets


def parse_backends(values: Sequence[str]) -> list[BackendAddress]:
    """Return back ends from "NAME=ADDRESS,NAME=ADDRESS" texts; splitvisor.machine.backends checks them."""
    parts = (item.strip().partition("=") for item in ",".join(values).split(","))
    return [BackendAddress(name, address) for name, _, address in parts]
