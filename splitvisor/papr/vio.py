# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers of the VIO bus: slots, unit addresses, connectors, interrupt sources and queue entries (LoPAPR 13.5, 17.2)."""

from __future__ import annotations

SLOTS = 64
"""Number of slots of a machine's VIO bus, for all its back ends together."""
FIRST_SLOT_ADDRESS = 0x7100_0000
"""Unit address of slot 0; the addresses that a bus assigns start there."""
FIRST_SLOT_INDEX = 0x3000_0000
"""DRC index of slot 0. Type 3 in the top four bits means VIO, as in QEMU; the lower bits are the slot's number."""
FIRST_INTERRUPT = 0x1100
"""First of the 256 interrupt sources that belong to the VIO bus."""
MAX_DEVICES = 256
"""The limit on devices: a bus has that many interrupt sources."""
CRQ_ENTRY_BYTES = 16
"""Size of an entry of a command/response queue (LoPAPR 17.2.3.1)."""


def slot_address(slot: int) -> int:
    """Return the unit address of a slot."""
    return FIRST_SLOT_ADDRESS + slot


def slot_index(slot: int) -> int:
    """Return the DRC index of a slot's connector."""
    return FIRST_SLOT_INDEX + slot


def slot_name(slot: int) -> str:
    """Return the location code of a slot's connector."""
    return f"V1-C{slot}"


def interrupt_source(unit_address: int) -> int:
    """Return the interrupt source of a unit address.

    PAPR leaves the rule to the platform. This is QEMU's: it gives distinct sources both to addresses that the bus chooses and to
    those that libvirt hands out in steps of 0x1000.
    """
    if unit_address >= FIRST_SLOT_ADDRESS:
        line = unit_address & 0xFF
    elif unit_address >= 0x3000_0000:
        line = 0xF0 | (unit_address >> 12 & 0xF)
    else:
        line = unit_address >> 12 & 0xFF
    return FIRST_INTERRUPT | line
