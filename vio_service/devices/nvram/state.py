# SPDX-License-Identifier: GPL-2.0-or-later
"""NVRAM's part of a snapshot: its contents."""

from __future__ import annotations

from splitvisor.declarations.state import StateError, parse_state
from splitvisor.rpc import state_pb2

VERSION = 1


def save(contents: bytes) -> bytes:
    """Return contents as a message of state.proto."""
    return state_pb2.NvramState(version=VERSION, contents=contents).SerializeToString()


def restored(data: bytes, what: str, size: int) -> bytes:
    """Return the saved contents. what: whose they are, for messages; size: how many bytes it has. Raises StateError."""
    contents: bytes = parse_state(state_pb2.NvramState, data, VERSION, what).contents
    if len(contents) != size:
        raise StateError(f"{what}: {len(contents)} bytes were saved, it has {size}")
    return contents
