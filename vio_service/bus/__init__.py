# SPDX-License-Identifier: GPL-2.0-or-later
"""The VIO bus of one VM: devices at unit addresses, and the DMA windows through which they see RAM."""
