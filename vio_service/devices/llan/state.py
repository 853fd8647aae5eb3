# SPDX-License-Identifier: GPL-2.0-or-later
"""A logical LAN device's state beyond what stands in guest memory: for a snapshot, and for the next life of its process."""

from __future__ import annotations

from splitvisor.declarations.state import StateError, parse_state
from splitvisor.lan.mac import MAC_BYTES
from splitvisor.rpc import state_pb2
from vio_service.devices.llan.filters import MAX_FILTERS, Filters
from vio_service.devices.llan.layout import ENTRY_BYTES
from vio_service.devices.llan.receiver import Registration

VERSION = 1


def save(registered: Registration | None, mac: bytes, filters: Filters, attributes: int) -> state_pb2.LanState:
    """Return a device's state as a message."""
    state = state_pb2.LanState(
        version=VERSION,
        mac=mac,
        attributes=attributes,
        reception=filters.reception,
        filtering=filters.filtering,
        groups=sorted(filters.groups),
    )
    if registered is not None:
        state.registration.CopyFrom(
            state_pb2.LanRegistration(
                buffer_list=registered.buffer_list,
                filter_list=registered.filter_list,
                queue=registered.queue,
                queue_bytes=registered.queue_bytes,
            )
        )
    return state


def parse(data: bytes, what: str) -> state_pb2.LanState:
    """Return a saved state. what: whose it is, for messages. Raises StateError."""
    state = parse_state(state_pb2.LanState, data, VERSION, what)
    if len(state.mac) != MAC_BYTES or len(state.groups) > MAX_FILTERS or any(len(group) != MAC_BYTES for group in state.groups):
        raise StateError(f"{what}: its state has addresses of other than {MAC_BYTES} bytes, or more than {MAX_FILTERS}")
    if state.HasField("registration") and (not state.registration.queue_bytes or state.registration.queue_bytes % ENTRY_BYTES):
        raise StateError(f"{what}: its state has a receive queue of {state.registration.queue_bytes} bytes")
    return state


def registration(state: state_pb2.LanState) -> Registration | None:
    """Return what the guest has registered, by a saved state."""
    saved = state.registration
    if not state.HasField("registration"):
        return None
    return Registration(saved.buffer_list, saved.filter_list, saved.queue, saved.queue_bytes)


def filters(state: state_pb2.LanState) -> Filters:
    """Return the filters of a saved state."""
    return Filters(reception=state.reception, filtering=state.filtering, groups=state.groups)
