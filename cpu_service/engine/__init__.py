# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything that knows Unicorn's insides: no other package touches its memory."""
