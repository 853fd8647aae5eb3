# SPDX-License-Identifier: GPL-2.0-or-later
"""Booting a machine without a kernel: which device, what on it or behind it, and how that gets into RAM.

process.py   which devices are tried, and what comes of it
attempt.py   what it takes to boot one device
disk.py      a disk or a CD-ROM drive: finder.py, bootinfo.py say what on it, program.py loads it
network.py   a network device: arriving.py has what arrives go into RAM
order.py     what --boot says; nvram.py: what the NVRAM says; menu.py: what somebody types
"""
