# SPDX-License-Identifier: GPL-2.0-or-later
"""How a problem is told: a sentence and a remedy for people, a reason for programs; in an exception and at the end of an rpc."""
