# SPDX-License-Identifier: GPL-2.0-or-later
"""The kinds of devices that vio_service brings."""
