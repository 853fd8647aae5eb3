# SPDX-License-Identifier: GPL-2.0-or-later
"""From the engine's hook to a call's owner, and back."""
