# SPDX-License-Identifier: GPL-2.0-or-later
"""What things cost, measured the same way each time, in turn with QEMU where it is installed."""
