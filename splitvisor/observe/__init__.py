# SPDX-License-Identifier: GPL-2.0-or-later
"""What processes count, how it is exported, and how people read it."""
