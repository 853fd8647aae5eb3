# SPDX-License-Identifier: GPL-2.0-or-later
"""Stubs that `./dev proto` generates from proto/splitvisor/v1; never edited by hand."""
