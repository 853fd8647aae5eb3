# SPDX-License-Identifier: GPL-2.0-or-later
"""A network device's wire, from begin() to finish()."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import structlog

from splitvisor.backend import Vm
from splitvisor.backend.vio import BusError
from splitvisor.lan.options import Net
from splitvisor.lan.switch import Switches
from splitvisor.lan.wire import Receive, WireError
from splitvisor.lan.wires import make_wire

HANDOVER_SECONDS = 10.0
"""How long a VM that has moved here tries to get what the process that it comes from may still have: a tap device, a port."""
HANDOVER_PAUSE_SECONDS = 0.02

SWITCHES = Switches()
"""For all devices of this process, whichever VM they are of."""

log = structlog.get_logger()


class Connection:
    """A device's wire.

    Args:
        vm: the VM of the device.
        net: what it is connected to.
        device: for messages.
        receive: takes frames.

    Raises BusError when what the network needs is not there.
    """

    def __init__(self, vm: Vm, net: Net, device: str, receive: Receive) -> None:
        self._device, self._receive = device, receive
        try:
            self.wire = make_wire(net, vm.name, SWITCHES)
        except WireError as error:
            raise self._refusal(error) from error
        self._taking: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect. Raises BusError."""
        try:
            await self.wire.open(self._receive)
        except WireError as error:
            raise self._refusal(error) from error

    def take_over(self) -> None:
        """Connect as soon as the process that the VM comes from lets go, some time after the VM runs here."""
        self._taking = asyncio.get_running_loop().create_task(self._take_over())

    async def close(self) -> None:
        """Disconnect."""
        if self._taking is not None:
            self._taking.cancel()
            with suppress(asyncio.CancelledError):
                await self._taking
        await self.wire.close()

    async def _take_over(self) -> None:
        deadline = time.monotonic() + HANDOVER_SECONDS
        while True:
            try:
                await self.wire.open(self._receive)
                return
            except WireError as error:
                if time.monotonic() > deadline:
                    log.error("network device is not connected", device=self._device, reason=str(error))
                    return
            await asyncio.sleep(HANDOVER_PAUSE_SECONDS)

    def _refusal(self, error: WireError) -> BusError:
        return BusError(f"{self._device}: {error.problem.what}", error.problem.remedy)
