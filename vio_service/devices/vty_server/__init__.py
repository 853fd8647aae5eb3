# SPDX-License-Identifier: GPL-2.0-or-later
"""vty-server: the other end of a VTY, in a guest (LoPAPR 16.2.1.2), so that a VM has the console of another one, or of itself."""

from splitvisor.backend.vio import DeviceKind
from vio_service.devices.vty_server.calls import CALLS
from vio_service.devices.vty_server.device import VtyServer

KIND = DeviceKind(VtyServer, CALLS)

__all__ = ["KIND", "VtyServer"]
