# SPDX-License-Identifier: GPL-2.0-or-later
"""Booting from a disk or a CD-ROM drive."""

from __future__ import annotations

from of_client_service.boot.attempt import Booted, NotBootedError
from of_client_service.boot.finder import BootFile, find_boot_file, find_named
from of_client_service.boot.program import ProgramLoader, open_program
from of_client_service.client_interface import ClientInterface
from of_client_service.disks.medium import open_medium
from of_client_service.disks.units import LogicalUnit
from of_client_service.volumes.source import VolumeError
from splitvisor.backend import Call
from splitvisor.declarations.guest_memory import GuestAddressError


class DiskAttempt:
    """The boot from a logical unit; see Attempt.

    Args:
        of: the machine's client interface.
        unit: the disk or drive.
        arguments: what a device specifier says of it; empty: nothing.
    """

    def __init__(self, of: ClientInterface, unit: LogicalUnit, arguments: str) -> None:
        self._of, self._unit, self._arguments = of, unit, arguments
        self._loading: tuple[ProgramLoader, BootFile] | None = None

    async def step(self, call: Call) -> Booted | None:
        """See Attempt."""
        try:
            if self._loading is None:
                await self._find(call)
                return None
            return await self._load(*self._loading)
        except (VolumeError, GuestAddressError) as error:
            label = "" if self._loading is None else f"{self._loading[1].label}: "
            raise NotBootedError(f"{label}{error}") from error

    async def _find(self, call: Call) -> None:
        of, unit = self._of, self._unit
        medium = await open_medium(of.vm, unit.adapter, unit.lun)
        if self._arguments:
            file = await find_named(medium, self._arguments)
        else:
            file = await find_boot_file(medium, lambda trouble: of.say(call, f"boot: {unit.name}: {trouble}"))
        try:
            self._loading = await open_program(of.vm, medium, file.source, of.claims), file
        except VolumeError as error:
            raise VolumeError(f"{file.label}: {error}") from error

    async def _load(self, loader: ProgramLoader, file: BootFile) -> Booted | None:
        if not await loader.step():
            return None
        return Booted(await loader.start(self._of.claims), file.label, file.device_arguments, file.arguments)
