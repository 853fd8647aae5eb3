# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM's relation to one back end, over all its connections."""
