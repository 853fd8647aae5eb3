# SPDX-License-Identifier: GPL-2.0-or-later
"""A VTY's part of a snapshot: its console."""

from __future__ import annotations

from splitvisor.declarations.state import parse_state
from splitvisor.rpc import state_pb2
from vio_service.console.console import STATE_VERSION, Console


def save(console: Console) -> bytes:
    """Return a console's state; it takes no input until the VM goes on."""
    console.is_frozen = True
    return console.save().SerializeToString()


def restore(console: Console, data: bytes, what: str, *, moved: bool) -> None:
    """Take over a console's state. what: whose it is, for messages. Raises StateError.

    A terminal at the console of a VM that has just moved goes on where it is; at one of an older snapshot it starts from the
    beginning.
    """
    console.is_frozen = True
    console.restore_state(parse_state(state_pb2.VtyState, data, STATE_VERSION, what), same_instance=moved)
