# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine boots: kernels, initramfs archives and firmware images, checked and put into RAM."""
