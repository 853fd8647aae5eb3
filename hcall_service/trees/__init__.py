# SPDX-License-Identifier: GPL-2.0-or-later
"""Device trees: the one that a machine starts with, those of H_UPDATE_DT, and what others look up and change."""
