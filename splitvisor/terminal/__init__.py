# SPDX-License-Identifier: GPL-2.0-or-later
"""Terminals at consoles: sessions, their menu, and scripts."""
