# SPDX-License-Identifier: GPL-2.0-or-later
"""How a process becomes a service: named, started, listening, healthy, and stopped."""
