# SPDX-License-Identifier: GPL-2.0-or-later
"""vio_service: the virtual I/O bus of pseries guests, its devices, and the consoles behind its VTYs."""
