# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices that come to, and go from, the bus of a running guest."""
