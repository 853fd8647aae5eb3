# SPDX-License-Identifier: GPL-2.0-or-later
"""CHRP's boot script, \\ppc\\bootinfo.txt: a text with tags, one of them a command of Open Firmware.

    <chrp-boot>
    <description>...</description>
    <boot-script>boot &device;:1,\\boot\\grub\\powerpc.elf quiet</boot-script>
    </chrp-boot>

Of the command, this firmware does `boot DEVICE-SPECIFIER ARGUMENTS`, as the media of Debian and grub-mkrescue have it.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

from of_client_service.volumes.source import VolumeError

PATH = "\\ppc\\bootinfo.txt"
MAX_BYTES = 64 << 10
MAX_ARGUMENTS = 2047
_SCRIPT = re.compile(r"<boot-script>(.*?)</boot-script>", re.IGNORECASE | re.DOTALL)
_BOOT = re.compile(r"\bboot\s+(\S{1,255})([^\r\n]*)")


@dataclass(frozen=True)
class BootScript:
    """The command of a boot script."""

    device: str
    """What the specifier names: a path or an alias; empty: the device that has the script."""
    device_arguments: str
    """What follows the device's colon: "1,\\boot\\grub\\powerpc.elf"."""
    arguments: str
    """The program's command line."""


def parse(text: bytes, partition: int) -> BootScript:
    """Take a script apart. partition: the one that has it, 0 for the whole medium. Raises VolumeError."""
    found = _SCRIPT.search(text[:MAX_BYTES].decode("latin-1"))
    if found is None:
        raise VolumeError(f"has a {PATH} without a boot script")
    script = found[1].replace("&device;", "\0").replace("&partition;", str(partition))
    command = _BOOT.search(html.unescape(script))
    if command is None:
        raise VolumeError(f"has a {PATH} whose script has no command boot")
    device, _, arguments = command[1].partition(":")
    return BootScript(device.replace("\0", ""), arguments.replace("\0", ""), command[2].strip()[:MAX_ARGUMENTS])
