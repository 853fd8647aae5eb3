# SPDX-License-Identifier: GPL-2.0-or-later
"""Random instructions on the engine and in QEMU's user mode: both must leave the same registers and the same memory.

A case is an instruction, sometimes with another before it, and the contents of all registers of user mode and of a window of
memory. Cases run in batches of some thousands. harness.S, the same bytes on both sides, loads the registers of a case, executes
its slot, and stores them. What differs and has no reason in differences.py is a failure.
"""
