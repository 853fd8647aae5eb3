# SPDX-License-Identifier: GPL-2.0-or-later
"""Logical LAN (l-lan): a guest's network device, connected to a wire of splitvisor.lan."""

from splitvisor.backend.vio import DeviceKind
from vio_service.devices.llan.calls import CALLS
from vio_service.devices.llan.device import LogicalLan
from vio_service.devices.llan.firmware import CALLS as FIRMWARE_CALLS

KIND = DeviceKind(LogicalLan, (*CALLS, *FIRMWARE_CALLS))

__all__ = ["KIND", "LogicalLan"]
