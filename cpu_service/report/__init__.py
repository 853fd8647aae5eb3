# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine shows of itself: status, metrics, crash reports, watched calls, recordings."""
