# SPDX-License-Identifier: GPL-2.0-or-later
"""The hypercalls and RTAS calls that need the processor's own state, and are therefore carried out here."""
