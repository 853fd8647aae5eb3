# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine shows of itself to operators: status and metrics."""
