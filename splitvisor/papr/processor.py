# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers of the guest's processor, a POWER8."""

from __future__ import annotations

PVR_POWER8 = 0x004D_0200
"""Processor version register (Power ISA 2.07, Book III-S 4.3.1): POWER8, version 2.0."""
TIMEBASE_HZ = 512_000_000
"""Ticks of the time base and the decrementer per second, as on every POWER8."""
