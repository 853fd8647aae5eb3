# SPDX-License-Identifier: GPL-2.0-or-later
"""PAPR's numbers in tables: hypercall tokens, return codes, RTAS calls. No other module defines one."""
