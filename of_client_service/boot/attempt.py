# SPDX-License-Identifier: GPL-2.0-or-later
"""What every kind of device that a machine boots from has in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from of_client_service.client_interface import StartedProgram
from splitvisor.backend import Call


class NotBootedError(Exception):
    """A device is not booted; the text says why, for a line on the console."""


class BootDevice(Protocol):
    """A device that can be booted from."""

    @property
    def path(self) -> str:
        """Its device path."""

    @property
    def alias(self) -> str:
        """The short name of it; empty: it has none."""

    @property
    def name(self) -> str:
        """For a line on the console."""


@dataclass(frozen=True)
class Booted:
    """A program that is in RAM."""

    program: StartedProgram
    label: str
    """What it is, for a line on the console: "PReP partition 1"."""
    device_arguments: str = ""
    """What follows the device in /chosen/bootpath."""
    arguments: str | None = None
    """Its command line; None: the machine's."""
    chosen: Mapping[str, bytes] = field(default_factory=dict)
    """Properties of /chosen."""


class Attempt(Protocol):
    """The boot from one device, which is under way."""

    async def step(self, call: Call) -> Booted | None:
        """Do something, for a while. Returns what is to be started; None: call again. Raises NotBootedError."""
