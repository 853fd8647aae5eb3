# SPDX-License-Identifier: GPL-2.0-or-later
"""Booting a machine without a kernel: which device, what on it, and how that gets into RAM."""
