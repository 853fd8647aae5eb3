# SPDX-License-Identifier: GPL-2.0-or-later
"""The disks and CD-ROM drives of a machine as packages of Open Firmware: their adapters, nodes, aliases and instances."""
