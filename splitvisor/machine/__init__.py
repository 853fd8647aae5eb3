# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine is: its configuration, its limits, its back ends, and its snapshots."""
