# SPDX-License-Identifier: GPL-2.0-or-later
"""Answers of a back end on their way from the thread that reads them to the one that waits."""

from __future__ import annotations

import queue

from cpu_service.link.errors import BackendUnavailableError
from splitvisor.rpc import trap_pb2 as pb

MAX_UNASKED = 128
"""Answers that nobody has taken; with more, the connection ends."""


class Answers:
    """The answers of one back end that nobody has taken."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[pb.AttachResponse] = queue.SimpleQueue()
        self.abandoned = False
        """Nobody waits any more: the machine stops."""
        self.get = self._queue.get
        """Take the next one: get(timeout=SECONDS). Raises queue.Empty."""

    def put(self, response: pb.AttachResponse) -> None:
        """Add an answer. Raises BackendUnavailableError with one too many."""
        if self._queue.qsize() >= MAX_UNASKED:
            raise BackendUnavailableError(f"it sent more than {MAX_UNASKED} answers that nobody waits for")
        self._queue.put(response)

    @property
    def count(self) -> int:
        """How many wait."""
        return self._queue.qsize()

    def is_there(self) -> bool:
        """Whether get() returns at once."""
        return not self._queue.empty()

    def abandon(self) -> None:
        """Let whoever waits go on, with an answer that is none."""
        self.abandoned = True
        self._queue.put(pb.AttachResponse())
