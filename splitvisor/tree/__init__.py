# SPDX-License-Identifier: GPL-2.0-or-later
"""Flattened device trees: read, written, compared, checked, printed."""
