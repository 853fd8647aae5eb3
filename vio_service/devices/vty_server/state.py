# SPDX-License-Identifier: GPL-2.0-or-later
"""A vty-server's part of a snapshot: to whom it was connected."""

from __future__ import annotations

from dataclasses import dataclass

from splitvisor.declarations.state import StateError, parse_state
from splitvisor.rpc import state_pb2

VERSION = 1
MAX_OUTPUT_BYTES = 4096


@dataclass(frozen=True)
class Connection:
    """A connection to a VTY."""

    vm: str
    unit_address: int
    position: int
    """Of the VTY's output, up to where it was taken."""
    output: bytes
    """What was taken and not read."""


def save(connection: Connection) -> bytes:
    """Return a connection as a message of state.proto."""
    return state_pb2.VtyServerState(
        version=VERSION,
        vm=connection.vm,
        unit_address=connection.unit_address,
        position=connection.position,
        output=connection.output,
    ).SerializeToString()


def restored(data: bytes, what: str) -> Connection:
    """Return the saved connection. what: whose it is, for messages. Raises StateError."""
    saved = parse_state(state_pb2.VtyServerState, data, VERSION, what)
    if len(saved.output) > MAX_OUTPUT_BYTES:
        raise StateError(f"{what}: {len(saved.output)} bytes of output cannot have waited")
    return Connection(saved.vm, saved.unit_address, saved.position, saved.output)
