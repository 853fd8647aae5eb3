# SPDX-License-Identifier: GPL-2.0-or-later
"""Transports of VIO devices: what a guest believes to be there though a device's process has ended (decision 011)."""
