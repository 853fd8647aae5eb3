# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine as a whole, as its guest asks about it: RTAS, hypercalls, events."""
