# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a PPC64 guest on Unicorn and sends its hypercalls and RTAS calls to their owners."""
