# SPDX-License-Identifier: GPL-2.0-or-later
"""VTY: the virtual serial port of a pseries guest (LoPAPR 16.2 and 17.5), a thin layer over a Console."""

from splitvisor.backend.vio import DeviceKind
from vio_service.devices.vty.calls import CALLS, MACHINE_CALLS
from vio_service.devices.vty.device import Vty

KIND = DeviceKind(Vty, CALLS)

__all__ = ["KIND", "MACHINE_CALLS", "Vty"]
