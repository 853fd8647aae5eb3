# SPDX-License-Identifier: GPL-2.0-or-later
"""Real guests, fetched into a cache."""
