# SPDX-License-Identifier: GPL-2.0-or-later
"""The host side of disks: what an image is to a device, and the kinds of images."""
