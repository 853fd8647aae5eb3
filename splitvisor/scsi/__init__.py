# SPDX-License-Identifier: GPL-2.0-or-later
"""SCSI targets: commands, data and sense as SPC, SBC and MMC have them, for any transport."""
