# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor vm`: its commands, together."""

from __future__ import annotations

from splitvisor.cli import vm_control, vm_disks, vm_drives
from splitvisor.cli.vm_devices import vm
from splitvisor.cli.vm_snapshot import register

vm_control.add_commands(vm)
vm_disks.add_commands(vm)
vm_drives.add_commands(vm)
register(vm)

__all__ = ["vm"]
