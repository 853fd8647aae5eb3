# SPDX-License-Identifier: GPL-2.0-or-later
"""Booting from a disk, a step per call of the firmware, until there is a program to start or nothing left to try.

Each device that is not booted gets one line on the console, which says why.
"""

from __future__ import annotations

from collections.abc import Sequence

from of_client_service.boot.finder import BootFile, find_boot_file, find_named
from of_client_service.boot.menu import Menu
from of_client_service.boot.nvram import boot_devices
from of_client_service.boot.order import KINDS, MENU, NVRAM, order_of, unit_at
from of_client_service.boot.program import ProgramLoader, open_program
from of_client_service.client_interface import ClientInterface, StartedProgram
from of_client_service.disks.medium import open_medium
from of_client_service.disks.units import LogicalUnit
from of_client_service.volumes.source import VolumeError
from splitvisor.backend import Call
from splitvisor.declarations.guest_memory import GuestAddressError
from splitvisor.rpc import trap_pb2 as pb

NOTHING = "there is nothing to boot"
MENU_INPUT_BYTES = 16
MAX_REASONS = 8
"""Of the lines that the end of the machine repeats."""


class BootProcess:
    """The boot of one machine between two resets.

    Args:
        of: its client interface.
    """

    def __init__(self, of: ClientInterface) -> None:
        self._of = of
        self._left: list[tuple[LogicalUnit, str]] | None = None
        """What is to be tried, with arguments of the device specifier; None: not known yet."""
        self._menu: Menu | None = None
        self._loading: tuple[ProgramLoader, LogicalUnit, BootFile] | None = None
        self._failures: list[str] = []
        self._has_failed = False

    async def step(self, call: Call) -> StartedProgram | None:
        """Do something. Returns the program to start; None: call again."""
        if self._loading is not None:
            return await self._load(call)
        if self._menu is not None:
            await self._ask(call, self._menu)
        elif self._left is None:
            await self._begin(call)
        elif self._left:
            await self._try(call, *self._left.pop(0))
        elif not self._has_failed:
            self._fail(call)
        return None

    async def _begin(self, call: Call) -> None:
        of = self._of
        units = await of.find_units()
        words = order_of(of.chosen)
        self._left = []
        for word in words:
            self._left += [each for each in await self._named(units, word) if each not in self._left]
        requested = None if of.requested is None else unit_at(of.tree.root, units, of.requested.path)
        if requested is not None:
            self._left = [requested, *(each for each in self._left if each != requested)]
        elif MENU in words and units:
            self._menu = Menu(units)
            of.say(call, *self._menu.lines())
        elif len(self._left) > 1:
            first, *others = (unit for unit, _ in self._left)
            of.say(call, f"boot: {first.name} is tried first, then {', '.join(unit.alias or unit.path for unit in others)}")

    async def _named(self, units: Sequence[LogicalUnit], word: str) -> list[tuple[LogicalUnit, str]]:
        """Return what a word of --boot stands for."""
        if word != NVRAM:
            return [(unit, "") for unit in units if unit.device_type == KINDS.get(word)]
        specifiers = await boot_devices(self._of.vm, self._of.tree.root)
        return [found for each in specifiers if (found := unit_at(self._of.tree.root, units, each)) is not None]

    async def _ask(self, call: Call, menu: Menu) -> None:
        stdin, stdout = self._of.console("stdin"), self._of.console("stdout")
        if stdin is not None and stdout is not None:
            stdout.put(call, menu.typed(await stdin.take(self._of.vm, MENU_INPUT_BYTES)).encode())
        unit = menu.choice()
        if unit is not None:
            self._menu, self._left = None, [(unit, "")]

    async def _try(self, call: Call, unit: LogicalUnit, arguments: str) -> None:
        of = self._of
        try:
            medium = await open_medium(of.vm, unit.adapter, unit.lun)
            if arguments:
                file = await find_named(medium, arguments)
            else:
                file = await find_boot_file(medium, lambda trouble: of.say(call, f"boot: {unit.name}: {trouble}"))
            try:
                loader = await open_program(of.vm, medium, file.source, of.claims)
            except VolumeError as error:
                raise VolumeError(f"{file.label}: {error}") from error
        except (VolumeError, GuestAddressError) as error:
            self._skip(call, unit, str(error))
            return
        self._loading = (loader, unit, file)

    async def _load(self, call: Call) -> StartedProgram | None:
        assert self._loading is not None
        loader, unit, file = self._loading
        try:
            if not await loader.step():
                return None
            program = await loader.start(self._of.claims)
        except (VolumeError, GuestAddressError) as error:
            self._loading = None
            self._skip(call, unit, f"{file.label}: {error}")
            return None
        of = self._of
        of.publish_available()
        path = unit.path + (f":{file.device_arguments}" if file.device_arguments else "")
        of.say_booted(path, file.arguments)
        of.say(call, f"boot: {file.label} of {unit.name}")
        return program

    def _skip(self, call: Call, unit: LogicalUnit, reason: str) -> None:
        line = f"{unit.name}: {reason}"
        self._failures.append(line)
        self._of.say(call, f"boot: {line}")

    def _fail(self, call: Call) -> None:
        """End the machine: nobody could do anything on its console."""
        self._has_failed = True
        why = "; ".join(self._failures[:MAX_REASONS]) or "the machine has no disk or CD-ROM drive that --boot names"
        self._of.say(call, f"boot: {NOTHING}")
        call.machine_action(pb.MACHINE_ACTION_KIND_CRASH, f"{NOTHING}: {why}")
