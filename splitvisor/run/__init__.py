# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor run`: services, a machine on them, a terminal at it, and the end of all three."""
