# SPDX-License-Identifier: GPL-2.0-or-later
"""The host side of networks: what a guest's network device is connected to."""
