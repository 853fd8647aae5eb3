# SPDX-License-Identifier: GPL-2.0-or-later
"""PAPR's numbers, one table each: hypercall tokens, return codes, RTAS calls. No other module spells one out."""
