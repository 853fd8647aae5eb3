# SPDX-License-Identifier: GPL-2.0-or-later
"""What others offer a pseries guest, for the comparisons in docs/: QEMU's pseries machine, and VOF, which is part of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from splitvisor.papr.hcall import hcall_name
from splitvisor.papr.rtas import TOKENS

_XIVE: Final = (
    "GET_SOURCE_INFO", "SET_SOURCE_CONFIG", "GET_SOURCE_CONFIG", "GET_QUEUE_INFO", "SET_QUEUE_CONFIG", "GET_QUEUE_CONFIG",
    "SET_OS_REPORTING_LINE", "GET_OS_REPORTING_LINE", "ESB", "SYNC", "RESET",
)  # fmt: skip
_NEWER_NAMES: Final[Mapping[int, str]] = {
    **{0x3A8 + 4 * index: f"H_INT_{name}" for index, name in enumerate(_XIVE)},
    0x3E4: "H_SCM_READ_METADATA",
    0x3E8: "H_SCM_WRITE_METADATA",
    0x3EC: "H_SCM_BIND_MEM",
    0x3F0: "H_SCM_UNBIND_MEM",
    0x3FC: "H_SCM_UNBIND_ALL",
    0x400: "H_SCM_HEALTH",
    0x448: "H_RPT_INVALIDATE",
    0x44C: "H_SCM_FLUSH",
    0xF800: "KVMPPC_H_SET_PARTITION_TABLE",
    0xF804: "KVMPPC_H_ENTER_NESTED",
    0xF808: "KVMPPC_H_TLB_INVALIDATE",
    0xF80C: "KVMPPC_H_COPY_TOFROM_GUEST",
}
_TOKENS: Final = (
    *(0x4, 0x8, 0xC, 0x18, 0x2C, 0x124, 0x36C, 0x370),  # page table
    *(0x1C, 0x20, 0x138, 0x13C),  # DMA
    *(0x24, 0x28, 0x134, 0x31C),  # processor registers
    *(0x3C, 0x40, 0x44, 0x48, 0x4C, 0x50),  # logical memory
    *(0x54, 0x58),  # terminals
    *(0x64, 0x68, 0x6C, 0x70, 0x74, 0x2FC),  # XICS
    *(0xDC, 0xE0, 0xE4, 0xE8, 0x298),  # shared processors
    *(0xFC, 0x100, 0x104, 0x108, 0x2B0),  # VIO
    *(0x114, 0x118, 0x11C, 0x120, 0x130, 0x14C),  # logical LAN
    *(0x1C8, 0x2EC, 0x300, 0x374, 0x378, 0x37C, 0x380, 0x45C),
    *(0xF000, 0xF001, 0xF002, 0xF003, 0xF005),
    *_NEWER_NAMES,
)

QEMU_HYPERCALLS: Final[Mapping[int, str]] = {token: _NEWER_NAMES.get(token, hcall_name(token)) for token in sorted(_TOKENS)}
"""Every hypercall that some configuration of QEMU's pseries machine has, by token."""

QEMU_RTAS: Final = frozenset(TOKENS)
"""Every RTAS call of QEMU's pseries machine: the names that have a token are QEMU's."""

VOF_SERVICES: Final[Mapping[str, str]] = {
    "finddevice": "",
    "getprop": "",
    "getproplen": "",
    "setprop": "2 KiB a property",
    "nextprop": "",
    "peer": "",
    "child": "",
    "parent": "",
    "open": "",
    "close": "",
    "instance-to-package": "",
    "package-to-path": "ignores the length",
    "instance-to-path": "ignores the length",
    "write": "shows nothing",
    "claim": "",
    "release": "whole claims",
    "call-method": "the first two methods",
    "interpret": "always fails",
    "milliseconds": "",
    "quiesce": "",
    "exit": "stops the machine",
}
"""VOF's client services, each with what is different there."""

OTHER_SERVICES: Final[Mapping[str, str]] = {
    "chain": "IEEE 1275 6.3.2.5",
    "set-callback": "IEEE 1275 6.3.2.6",
    "set-symbol-lookup": "IEEE 1275 6.3.2.6",
    "instance-to-interposed-path": "SLOF",
    "start-cpu": "SLOF",
    "yield": "SLOF",
}
"""Client services of IEEE 1275 and of SLOF that this platform does not have: where each comes from."""
