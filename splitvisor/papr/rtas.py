# SPDX-License-Identifier: GPL-2.0-or-later
"""RTAS calls (PAPR chapter 7) and the tokens that the device tree publishes for them.

PAPR leaves tokens to the platform. These are QEMU's, so that a trace of one reads like a trace of the other; calls that are
not listed get tokens from FIRST_FREE_TOKEN when a back end registers them.
"""

FIRST_TOKEN = 0x2000
FIRST_FREE_TOKEN = 0x2080
DISPLAY_CHARACTER_EARLY_TOKEN = 0xA
"""SLOF's early debug output uses this number before it has read the tree."""

_NAMES = (
    "display-character",
    "get-time-of-day",
    "set-time-of-day",
    "power-off",
    "system-reboot",
    "query-cpu-stopped-state",
    "start-cpu",
    "stop-self",
    "ibm,get-system-parameter",
    "ibm,set-system-parameter",
    "ibm,set-xive",
    "ibm,get-xive",
    "ibm,int-off",
    "ibm,int-on",
    "check-exception",
    "event-scan",
    "ibm,set-tce-bypass",
    "quiesce",
    "nvram-fetch",
    "nvram-store",
    "read-pci-config",
    "write-pci-config",
    "ibm,read-pci-config",
    "ibm,write-pci-config",
    "ibm,query-interrupt-source-number",
    "ibm,change-msi",
    "set-indicator",
    "set-power-level",
    "get-power-level",
    "get-sensor-state",
    "ibm,configure-connector",
    "ibm,os-term",
    "ibm,set-eeh-option",
    "ibm,get-config-addr-info2",
    "ibm,read-slot-reset-state2",
    "ibm,set-slot-reset",
    "ibm,configure-pe",
    "ibm,slot-error-detail",
    "ibm,query-pe-dma-window",
    "ibm,create-pe-dma-window",
    "ibm,remove-pe-dma-window",
    "ibm,reset-pe-dma-window",
    "ibm,suspend-me",
    "ibm,nmi-register",
    "ibm,nmi-interlock",
)

TOKENS: dict[str, int] = {name: FIRST_TOKEN + index for index, name in enumerate(_NAMES)}
"""Token of each RTAS call by name."""
