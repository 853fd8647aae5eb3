# SPDX-License-Identifier: GPL-2.0-or-later
"""Saves the state of a back end's session, and lets the session go on: here, in another cpu_service, or here after all."""

from __future__ import annotations

import queue
import time
from contextlib import suppress

from cpu_service.link.answers import Answers
from cpu_service.link.attachment import Attachment
from cpu_service.link.errors import BackendUnavailableError
from cpu_service.link.events import HeldEvents
from cpu_service.link.outbox import Outbox
from splitvisor.declarations.state import StateCollector, StateError
from splitvisor.rpc import trap_pb2 as pb

PROBE_TIMEOUT_S = 3.0
LOOK_S = 0.05
"""How often a save looks whether the back end is still there."""


class StateTransfer:
    """The states of one back end.

    Args:
        name: the back end's name in the configuration.
        address: its gRPC target.
        outbox: asks for states.
        answers: has them.
        attachment: does not connect while a state may be elsewhere.
        events: what the back end does after it was saved.
    """

    def __init__(
        self, name: str, address: str, outbox: Outbox, answers: Answers, attachment: Attachment, events: HeldEvents
    ) -> None:
        self._name = name
        self._where = f"back end {name} at {address}"
        self._outbox, self._answers, self._attachment, self._events = outbox, answers, attachment, events
        self._saves = 0

    def hold(self) -> None:
        """Until release() do not connect again should the connection be lost, and keep what the back end does after save()."""
        self._attachment.hold()

    def save(self, timeout: float) -> bytes:
        """Return the state of the back end's devices, all posted calls done. Only while held.

        Raises BackendUnavailableError when it has not come after timeout seconds.
        """
        deadline = time.monotonic() + timeout
        self._outbox.wait_acknowledged(lambda: self._is_up(deadline), LOOK_S)
        self._saves += 1
        self._outbox.send(pb.AttachRequest(save_state=pb.SaveState(id=self._saves)))
        collector = StateCollector(self._name)
        while self._is_up(deadline):
            try:
                saved = self._answers.get(timeout=LOOK_S).saved_state
            except queue.Empty:
                continue
            if saved.id != self._saves:
                continue
            if saved.error:
                raise BackendUnavailableError(f"{self._where} is not saved: {saved.error}")
            try:
                collector.add(saved.data)
            except StateError as error:
                raise BackendUnavailableError(str(error)) from error
            if saved.last:
                return collector.state()
        reason = "it does not answer" if self._outbox.attached else f"it was lost: {self._attachment.failure}"
        raise BackendUnavailableError(f"{self._where} is not saved: {reason}", "try again later")

    def _is_up(self, deadline: float) -> bool:
        return self._outbox.attached and not self._answers.abandoned and time.monotonic() < deadline

    def take_back(self, state: bytes, incarnation: int) -> None:
        """End hold() when another cpu_service may have taken the back end's session over; then it starts again with a state.

        Args:
            state: what save() has returned.
            incarnation: higher than that of the other cpu_service.
        """
        with suppress(BackendUnavailableError):
            self.save(PROBE_TIMEOUT_S)  # A connection that was lost just now may not have been missed yet.
        self._outbox.take_back(state, incarnation)
        self.release()

    def release(self) -> None:
        """End hold(): the machine goes on."""
        self._outbox.resume_saved()
        self._attachment.release()
        self._events.release()

    def resume(self) -> None:
        """Let a restored session know that the machine runs."""
        self._outbox.resume()
