# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor vm`: its commands, together."""

from __future__ import annotations

from splitvisor.cli.vm_control import add_commands
from splitvisor.cli.vm_devices import vm

add_commands(vm)

__all__ = ["vm"]
