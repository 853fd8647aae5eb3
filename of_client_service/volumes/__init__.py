# SPDX-License-Identifier: GPL-2.0-or-later
"""What is on a medium: partition tables and the two file systems that firmware reads. Every field is the guest's, and checked."""
