# SPDX-License-Identifier: GPL-2.0-or-later
"""NVRAM: a VIO device whose bytes the guest reaches through two RTAS calls (LoPAPR 7.3.1)."""

from splitvisor.backend.vio import DeviceKind
from vio_service.devices.nvram.calls import MACHINE_CALLS
from vio_service.devices.nvram.device import Nvram

KIND = DeviceKind(Nvram)

__all__ = ["KIND", "MACHINE_CALLS", "Nvram"]
