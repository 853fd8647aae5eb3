# SPDX-License-Identifier: GPL-2.0-or-later
"""The Open Firmware client interface (IEEE 1275) of a pseries machine, as a trap back end."""
