# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's side of terminals: consoles, who reads and types, and transcripts."""
