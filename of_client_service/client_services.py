# SPDX-License-Identifier: GPL-2.0-or-later
"""Every client service in one table; docs/openfirmware.md is made from it."""

from __future__ import annotations

from of_client_service import boot_services, control_services, device_services, memory_services, tree_services
from of_client_service.client_interface import MAX_NAME, ClientCall, ClientInterface, ClientService
from of_client_service.device_services import EXISTS, MISSING


async def _test(of: ClientInterface, call: ClientCall) -> int:
    return EXISTS if await of.string(call.arguments[0], MAX_NAME) in CLIENT_SERVICES else MISSING


SERVICES = (
    ClientService("test", _test, 1, 1, "6.3.2.1"),
    *tree_services.SERVICES,
    *device_services.SERVICES,
    *memory_services.SERVICES,
    *control_services.SERVICES,
    *boot_services.SERVICES,
)

CLIENT_SERVICES: dict[str, ClientService] = {service.name: service for service in SERVICES}
