# SPDX-License-Identifier: GPL-2.0-or-later
"""Who looks on while calls and messages pass: recordings and watchers."""
