# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs for the guest: what a file is, what of it is loaded, and where its segments and its entry are in RAM."""
