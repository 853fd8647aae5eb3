# SPDX-License-Identifier: GPL-2.0-or-later
"""The one machine of a cpu_service: its parts, what is in RAM at the start, its life."""
