# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest memory that this service uses: between the firmware's code, which ends below, and its stack, which begins above.

Both firmwares that work through the client interface leave it free: Splitvisor's own and VOF.
"""

BOUNCE_AT, BOUNCE_BYTES = 0x4000, 0x2000
"""Where blocks are read that only a part is wanted of, and what this service looks into itself."""
LUN_TABLE_AT, LUN_TABLE_BYTES = 0x6000, 0x2000
"""Where vscsi-report-luns puts its answer, which the client reads at its leisure."""
