# SPDX-License-Identifier: GPL-2.0-or-later
"""Client services about memory (IEEE 1275 6.3.2.4)."""

from __future__ import annotations

from collections.abc import Sequence

from of_client_service.client_interface import FAILED, FIRMWARE_BYTES, ClientCall, ClientInterface, ClientService


def _claim(of: ClientInterface, call: ClientCall) -> int:
    address = of.claims.claim(*call.arguments)
    if address is None:
        return FAILED
    of.publish_available()
    return address


def _release(of: ClientInterface, call: ClientCall) -> Sequence[int]:
    address, size = call.arguments
    # The firmware must stay where it is for as long as it can be called.
    kept = max(address, FIRMWARE_BYTES)
    if of.claims.release(kept, address + size - kept):
        of.publish_available()
    return ()


SERVICES = (
    ClientService("claim", _claim, 3, 1, "6.3.2.4", note="below 4 GiB; with an alignment, the lowest free address"),
    ClientService("release", _release, 2, 0, "6.3.2.4", note="any part of what is claimed, the firmware excepted"),
)
