# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of a session as bytes: its version, and its way over a trap stream in parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from google.protobuf.message import DecodeError

from splitvisor.errors.problem import ProblemError

PART_BYTES = 1 << 20
"""Of a state in one message."""
MAX_STATE_BYTES = 64 << 20
"""Of one session."""

_Message = TypeVar("_Message", bound=Any)


class StateError(ProblemError):
    """A state cannot be taken over: it is broken, of another version, or does not fit. One line, with what it is the state of."""


def parse_state(message: type[_Message], data: bytes, version: int, what: str) -> _Message:
    """Return a versioned message of state.proto.

    Args:
        message: its class, with a field `version`.
        data: its bytes.
        version: the one that the caller knows.
        what: whose state it is, for messages.

    Raises StateError.
    """
    try:
        state: _Message = message.FromString(data)
    except DecodeError as error:
        raise StateError(f"{what}: its state is broken") from error
    if state.version != version:
        raise StateError(f"{what}: its state has version {state.version}, this Splitvisor knows version {version}")
    return state


def parts(state: bytes) -> Iterator[tuple[bytes, bool]]:
    """Cut a state for the stream: each part, and whether it is the last."""
    for start in range(0, max(len(state), 1), PART_BYTES):
        yield state[start : start + PART_BYTES], start + PART_BYTES >= len(state)


class StateCollector:
    """Puts parts together. Raises StateError for more than MAX_STATE_BYTES."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, data: bytes) -> None:
        """Take the next part."""
        self._size += len(data)
        if self._size > MAX_STATE_BYTES:
            raise StateError(f"{self._what}: its state has more than {MAX_STATE_BYTES} bytes")
        self._parts.append(data)

    def state(self) -> bytes:
        """All of it."""
        return b"".join(self._parts)
