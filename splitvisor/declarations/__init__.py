# SPDX-License-Identifier: GPL-2.0-or-later
"""The words of a back end: calls, sessions, guest memory, nodes, saved state. Its public name is splitvisor.backend."""
