# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor vm`: its commands, together."""

from __future__ import annotations

from splitvisor.cli.vm_control import add_commands
from splitvisor.cli.vm_devices import vm
from splitvisor.cli.vm_snapshot import register

add_commands(vm)
register(vm)

__all__ = ["vm"]
