# SPDX-License-Identifier: GPL-2.0-or-later
"""vCPUs: who runs and for how long, what wakes who waits, and the guest's clock."""
