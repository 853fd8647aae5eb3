# SPDX-License-Identifier: GPL-2.0-or-later
"""Limits that more than one process holds: what a machine may be, and how large a message between services is."""

from __future__ import annotations

import re

MIB = 1 << 20

CERTIFICATE_BYTES = 256 << 10
"""The largest file that is taken for a certificate or a key."""
MESSAGE_BYTES = 4 * MIB
"""Of a gRPC message in either direction; the contracts promise it."""

VM_NAME_LENGTH = 63
"""Characters, at most."""
VM_NAME_RULE = "1 to 63 characters of a-z, 0-9 and '-'"
"""Of a VM's name, for messages. Names become parts of paths, of labels and of log lines."""
MEMORY_MIN = 256 * MIB
"""Bytes of RAM."""
MEMORY_MAX = 16384 * MIB
"""Bytes of RAM."""
MEMORY_STEP = 16 * MIB
"""RAM is a multiple of this: the smallest logical memory block, from which the page table's size follows."""
MAX_VCPUS = 8
NVRAM_BYTES, NVRAM_MIN, NVRAM_MAX = 64 << 10, 8 << 10, MIB
"""Of a machine's NVRAM when its size is not given, at least and at most; SLOF's partitions need the minimum."""
BOOTARGS_BYTES = 2047
"""Linux's COMMAND_LINE_SIZE on powerpc is 2048, its NUL included."""
MAX_DEVICES = 64
"""Virtual devices that a machine's configuration lists."""
MAX_FURTHER_BACKENDS = 16
"""Back ends besides the services of Splitvisor."""
BOOT_SOURCES = ("disk", "cdrom", "net", "nvram", "menu")
"""What --boot takes: where a machine without a kernel looks for one, or who says so: its NVRAM, its console."""

_VM_NAME = re.compile(r"[a-z0-9-]{1,63}")


def is_vm_name(name: str) -> bool:
    """Whether a VM may have a name (VM_NAME_RULE)."""
    return _VM_NAME.fullmatch(name) is not None
