# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may be spoken to, and how: addresses, channels, and mutual TLS beyond this host."""
