# SPDX-License-Identifier: GPL-2.0-or-later
"""RTAS, the hypercalls that describe the platform, the seed tree, and the store of every machine's device tree."""
