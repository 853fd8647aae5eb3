# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMs that the gateway leads to, and the channels to their services."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import grpc.aio

from splitvisor.limits import MESSAGE_BYTES
from splitvisor.net.addresses import AddressError
from splitvisor.net.channels import CONNECT_MS, open_aio_channel
from splitvisor.run.running_vms import running_vms
from splitvisor.service.serve import SettingError

SERVICES = ("cpu", "hcall", "vio")
"""What the gateway speaks to, by command name."""

CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 5000),
    ("grpc.http2.ping_timeout_ms", 5000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    # Windows stay at 64 KiB instead of growing to megabytes: what a slow browser has not taken waits at the console's log.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", CONNECT_MS),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


@dataclass(frozen=True)
class Vm:
    """A VM and where its services are."""

    id: str
    """As URLs have it: its name, with more where two are called the same."""
    name: str
    addresses: Mapping[str, str]
    """gRPC targets, by SERVICES."""


Find = Callable[[], Sequence[Vm]]
"""Returns the VMs that there are now; may read files."""


def find_running() -> Sequence[Vm]:
    """Return the VMs of this user's runs."""
    found = list(running_vms())
    names = Counter(run.name for run in found)
    return [
        Vm(run.name if names[run.name] == 1 else f"{run.name}@{run.pid}", run.name, run.services)
        for run in sorted(found, key=lambda run: (run.name, run.pid))
        if all(service in run.services for service in SERVICES)
    ]


def parse_connect(values: Sequence[str]) -> Sequence[Vm]:
    """Return the VMs that "vm=NAME,cpu=ADDRESS,hcall=ADDRESS,vio=ADDRESS" texts describe. Raises SettingError."""
    vms: dict[str, Vm] = {}
    for text in values:
        where = f"--connect {text}"
        parts = dict(item.partition("=")[::2] for item in text.split(","))
        if parts.keys() != {"vm", *SERVICES} or not all(parts.values()):
            wanted = ",".join(f"{service}=ADDRESS" for service in SERVICES)
            raise SettingError(f"{where}: wants vm=NAME,{wanted}", "give each once")
        name = parts.pop("vm")
        if name in vms:
            raise SettingError(f"{where}: there are two VMs {name!r}", "give each a name of its own")
        vms[name] = Vm(name, name, parts)
    return list(vms.values())


class Channels:
    """One channel per address, closed once no VM has the address any more."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def vms(self) -> Sequence[Vm]:
        """Return the VMs that there are."""
        found = await asyncio.to_thread(self._find)
        used = {address for vm in found for address in vm.addresses.values()}
        for address in self._channels.keys() - used:
            await self._channels.pop(address).close(None)
        return found

    def channel(self, vm: Vm, service: str) -> grpc.aio.Channel:
        """Return the channel to one of a VM's services. Raises AddressError."""
        address = vm.addresses[service]
        if address not in self._channels:
            self._channels[address] = open_aio_channel(address, CHANNEL_OPTIONS)
        return self._channels[address]

    def check(self, vms: Sequence[Vm]) -> None:
        """Open the channels of VMs that must be right at the start. Raises SettingError."""
        for vm in vms:
            for service in SERVICES:
                try:
                    self.channel(vm, service)
                except AddressError as error:
                    raise SettingError(f"--connect: {error}") from error

    async def close(self) -> None:
        """Close them all; calls on them end."""
        for channel in self._channels.values():
            await channel.close(None)
