# SPDX-License-Identifier: GPL-2.0-or-later
"""The gateway: what browsers reach the services through. docs/web.md has its protocol."""
