# SPDX-License-Identifier: GPL-2.0-or-later
"""What cpu_service says to one back end: calls that wait, posted calls with credit, resets, saves."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog

from cpu_service.link.connection import LinkConnection
from cpu_service.link.contract import BackendUnavailableError
from splitvisor.declarations.state import StateCollector, StateError
from splitvisor.rpc import trap_pb2 as pb

PROBE_TIMEOUT_S = 3.0
LOOK_S = 0.05
"""How often a save looks whether the back end is still there."""

log = structlog.get_logger()


class BackendLink(LinkConnection):
    """The calls of one VM to one back end; see LinkConnection for its arguments."""

    # The vCPU's side.

    def call(
        self,
        route: int,
        vcpu: int,
        arguments: Sequence[int],
        returns: int,
        operands: Sequence[pb.MemoryBlock],
        timeout: float,
        invoke: Callable[[pb.Invoke], pb.InvokeResult],
        traceparent: str = "",
    ) -> pb.Reply | None:
        """Make a synchronous call and wait for its reply; None after timeout seconds.

        Args:
            route: index into the offer.
            vcpu: who calls.
            arguments: registers from r4, or RTAS argument words.
            returns: RTAS: room for return words.
            operands: the memory that the route asks for.
            timeout: seconds; reconnects take place within it.
            invoke: carries out hypercalls that the back end makes on behalf of this vCPU.
            traceparent: the span that the call is in; empty: none.
        """
        request = pb.AttachRequest()
        trap = request.trap  # In its place: half the time of making a trap and then a request with it.
        trap.vcpu, trap.sequence, trap.route = vcpu, self._ledger.next(vcpu), route
        trap.arguments.extend(arguments)
        if returns:
            trap.returns = returns
        if operands:
            trap.operands.extend(operands)
        if traceparent:
            trap.traceparent = traceparent
        if skipped := self._ledger.skipped(vcpu):
            trap.skipped = skipped
        with self._lock:
            self._queue_batch()
            self._outstanding = request
            self._send(request)
        deadline = time.monotonic() + timeout
        invoked = pb.InvokeResult()
        try:
            while not self._abandoned:
                response = self._answer(deadline)
                if response.HasField("invoke"):
                    if response.invoke.id != invoked.id:  # The same again: its answer was lost with a connection.
                        invoked = invoke(response.invoke)
                    with self._lock:
                        self._send(pb.AttachRequest(invoke_result=invoked))
                elif response.reply.vcpu == vcpu and response.reply.sequence == trap.sequence:
                    self._ledger.answered(trap)
                    return response.reply
            return None
        except queue.Empty:
            name = self.offer.routes[route].name
            log.warning("back end did not answer in time", backend=self.name, call=name, vcpu=vcpu, seq=trap.sequence)
            self._ledger.give_up(trap)
            return None
        finally:
            self._outstanding = None

    def mirror_write(self, write: pb.MirrorWrite) -> bool:
        """Change a copy, if there is one; False when there is no such place in it."""
        contents = self.mirrors.get(write.name)
        if contents is None:
            return True
        if write.offset + len(write.data) > len(contents):
            return False
        contents[write.offset : write.offset + len(write.data)] = write.data
        return True

    def post(
        self,
        route: int,
        vcpu: int,
        arguments: Sequence[int],
        operands: Sequence[pb.MemoryBlock],
        size: int,
        traceparent: str = "",
    ) -> bool:
        """Make a posted call of so many bytes; False when the route's credit does not allow it."""
        with self._lock:
            if not self._ledger.take_credit(route, size, self.offer.routes[route].posted.credit_bytes):
                self.credit_stalls += 1
                return False
            self.posted_calls += 1
            self.posted_bytes += size
            trap = pb.Trap(
                vcpu=vcpu, sequence=self._ledger.next(vcpu), route=route, arguments=arguments, operands=operands,
                traceparent=traceparent, skipped=self._ledger.skipped(vcpu),
            )  # fmt: skip
            self._ledger.posted(trap, size)
            self._batch.append(trap)
            self._gather()
        return True

    def wait_for_credit(self, timeout: float) -> None:
        """Wait until the back end acknowledges posted calls, timeout seconds at most."""
        with self._lock:
            if not self._abandoned:
                self._acknowledged.wait(timeout)

    def reset(self, count: int, timeout: float) -> None:
        """Reset the back end's devices and wait for it. Raises BackendUnavailableError after timeout seconds."""
        request = pb.AttachRequest(reset=pb.Reset(count=count))
        with self._lock:
            self._outstanding = request
            self._send(request)
        deadline = time.monotonic() + timeout
        try:
            while not self._abandoned:
                response = self._answer(deadline)
                if response.HasField("reset_done") and response.reset_done.count == count:
                    return
        except queue.Empty:
            raise BackendUnavailableError(
                f"back end {self.name} at {self.address} did not reset its devices within {timeout:.0f} s"
            ) from None
        finally:
            self._outstanding = None

    # Saving.

    def hold(self) -> None:
        """Until release() do not connect anew should the connection be lost, and keep what the back end does after save()."""
        self._may_connect.clear()

    def save(self, timeout: float) -> bytes:
        """Return the state of the back end's devices, all posted calls done. Only while held.

        Raises BackendUnavailableError when it has not come after timeout seconds.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            if (wire := self._queue_batch()) is not None:
                wire.flush()
            while self._ledger.unacknowledged and self._is_up(deadline):
                self._acknowledged.wait(max(0.0, min(deadline - time.monotonic(), LOOK_S)))
            self._saves += 1
            self._send(pb.AttachRequest(save_state=pb.SaveState(id=self._saves)))
        collector = StateCollector(self.name)
        while self._is_up(deadline):
            try:
                saved = self._answers.get(timeout=LOOK_S).saved_state
            except queue.Empty:
                continue
            if saved.id != self._saves:
                continue
            if saved.error:
                raise BackendUnavailableError(f"back end {self.name} at {self.address} is not saved: {saved.error}")
            try:
                collector.add(saved.data)
            except StateError as error:
                raise BackendUnavailableError(str(error)) from error
            if saved.last:
                return collector.state()
        reason = f"it was lost: {self._failure}" if not self.attached else "it does not answer"
        raise BackendUnavailableError(f"back end {self.name} at {self.address} is not saved: {reason}; try again later")

    def _is_up(self, deadline: float) -> bool:
        return self.attached and not self._abandoned and time.monotonic() < deadline

    def take_back(self, state: bytes, incarnation: int) -> None:
        """End hold() when another cpu_service may have taken the back end's session over; then it starts anew with a state.

        Args:
            state: what save() has returned.
            incarnation: higher than that of the other cpu_service.
        """
        with suppress(BackendUnavailableError):
            self.save(PROBE_TIMEOUT_S)  # A connection that was lost just now may not have been missed yet.
        with self._lock:
            if not self.attached:
                self._hello.incarnation = incarnation
                self._hello.moved = True
                self._restore = state
                self._takes_back = True
        self.release()

    def resume(self) -> None:
        """Tell a restored session that the machine runs."""
        with self._lock:
            self._stands_still = False
            self._send(pb.AttachRequest(resumed=pb.Resumed()))

    def release(self) -> None:
        """End hold(): the machine goes on."""
        with self._lock:
            if self.attached:
                self._send(pb.AttachRequest(resumed=pb.Resumed()))
            self._may_connect.set()
        self.acts.release()
