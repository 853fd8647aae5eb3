# SPDX-License-Identifier: GPL-2.0-or-later
"""Booting from devices, a step per call of the firmware, until there is a program to start or nothing left to try.

Each device that is not booted gets one line on the console, which says why.
"""

from __future__ import annotations

from collections.abc import Sequence

from of_client_service.boot.attempt import Attempt, Booted, NotBootedError
from of_client_service.boot.disk import DiskAttempt
from of_client_service.boot.menu import Menu
from of_client_service.boot.network import NetworkAttempt
from of_client_service.boot.nvram import boot_devices
from of_client_service.boot.order import DISK_KINDS, MENU, NET, NVRAM, device_at, order_of
from of_client_service.client_interface import ClientInterface, StartedProgram
from of_client_service.disks.units import LogicalUnit
from of_client_service.network.devices import NetworkDevice
from splitvisor.backend import Call
from splitvisor.rpc import trap_pb2 as pb

NOTHING = "there is nothing to boot"
MENU_INPUT_BYTES = 16
MAX_REASONS = 8
"""Of the lines that the end of the machine repeats."""

Device = LogicalUnit | NetworkDevice


class BootProcess:
    """The boot of one machine between two resets.

    Args:
        of: its client interface.
    """

    def __init__(self, of: ClientInterface) -> None:
        self._of = of
        self._left: list[tuple[Device, str]] | None = None
        """What is to be tried, with arguments of the device specifier; None: not known yet."""
        self._menu: Menu[Device] | None = None
        self._trying: tuple[Device, Attempt] | None = None
        self._failures: list[str] = []
        self._has_failed = False

    async def step(self, call: Call) -> StartedProgram | None:
        """Do something. Returns the program to start; None: call again."""
        if self._trying is not None:
            return await self._try(call, *self._trying)
        if self._menu is not None:
            await self._ask(call, self._menu)
        elif self._left is None:
            await self._begin(call)
        elif self._left:
            device, arguments = self._left.pop(0)
            self._trying = device, self._attempt(device, arguments)
        elif not self._has_failed:
            self._fail(call)
        return None

    async def _begin(self, call: Call) -> None:
        of = self._of
        devices: Sequence[Device] = (*await of.find_units(), *of.networks())
        words = order_of(of.chosen)
        self._left = []
        for word in words:
            self._left += [each for each in await self._named(devices, word) if each not in self._left]
        requested = None if of.requested is None else device_at(of.tree.root, devices, of.requested.path)
        if requested is not None:
            self._left = [requested, *(each for each in self._left if each != requested)]
        elif MENU in words and devices:
            self._menu = Menu(devices)
            of.say(call, *self._menu.lines())
        elif len(self._left) > 1:
            first, *others = (device for device, _ in self._left)
            then = ", ".join(device.alias or device.path for device in others)
            of.say(call, f"boot: {first.name} is tried first, then {then}")

    async def _named(self, devices: Sequence[Device], word: str) -> list[tuple[Device, str]]:
        """Return what a word of --boot stands for."""
        if word == NVRAM:
            specifiers = await boot_devices(self._of.vm, self._of.tree.root)
            return [found for each in specifiers if (found := device_at(self._of.tree.root, devices, each)) is not None]
        if word == NET:
            return [(device, "") for device in devices if isinstance(device, NetworkDevice)]
        kind = DISK_KINDS.get(word)
        return [(device, "") for device in devices if isinstance(device, LogicalUnit) and device.device_type == kind]

    async def _ask(self, call: Call, menu: Menu[Device]) -> None:
        stdin, stdout = self._of.console("stdin"), self._of.console("stdout")
        if stdin is not None and stdout is not None:
            stdout.put(call, menu.typed(await stdin.take(self._of.vm, MENU_INPUT_BYTES)).encode())
        device = menu.choice()
        if device is not None:
            self._menu, self._left = None, [(device, "")]

    def _attempt(self, device: Device, arguments: str) -> Attempt:
        if isinstance(device, NetworkDevice):
            return NetworkAttempt(self._of, device, arguments)
        return DiskAttempt(self._of, device, arguments)

    async def _try(self, call: Call, device: Device, attempt: Attempt) -> StartedProgram | None:
        try:
            booted = await attempt.step(call)
        except NotBootedError as error:
            self._trying = None
            line = f"{device.name}: {error}"
            self._failures.append(line)
            self._of.say(call, f"boot: {line}")
            return None
        return None if booted is None else self._start(call, device, booted)

    def _start(self, call: Call, device: Device, booted: Booted) -> StartedProgram:
        of = self._of
        of.publish_available()
        of.say_booted(device.path + (f":{booted.device_arguments}" if booted.device_arguments else ""), booted.arguments)
        of.chosen.node.properties |= booted.chosen
        of.say(call, f"boot: {booted.label} of {device.name}")
        return booted.program

    def _fail(self, call: Call) -> None:
        """End the machine: nobody could do anything on its console."""
        self._has_failed = True
        why = "; ".join(self._failures[:MAX_REASONS])
        why = why or "the machine has no disk, CD-ROM drive or network device that --boot names; add --disk, --cdrom or --net"
        self._of.say(call, f"boot: {NOTHING}")
        call.machine_action(pb.MACHINE_ACTION_KIND_CRASH, f"{NOTHING}: {why}", reason_only=True)
