# SPDX-License-Identifier: GPL-2.0-or-later
"""The records of one link as what they mean: requests with their answers, whatever connections they took.

A back end handles requests one after the other, so what it asks for meanwhile (memory, invokes) belongs to the oldest request
that it has not answered. Repetitions after a lost connection are recognised by their numbers and left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from splitvisor.recording import RecordingError
from splitvisor.rpc import recording_pb2 as rpb
from splitvisor.rpc import trap_pb2 as pb

MAX_LINKS = 32
"""As many back ends as a machine may have."""
MAX_UNANSWERED = 4096
"""Requests of one link that wait for their answers; more than credit and vCPUs allow in any machine."""
MAX_ASKED = 65536
"""Of the back end, within one request."""
MAX_BYTES = 64 << 20
"""Of requests without an answer, with what was asked in them: a file must not make a reader keep more."""


@dataclass(eq=False)
class Step:
    """A request, and what the back end did until it had answered it."""

    time_ns: int
    request: pb.AttachRequest
    """trap, posted or reset."""
    response: pb.AttachResponse = field(default_factory=pb.AttachResponse)
    """reply, reset_done, or of a batch what said first that it is done: an acknowledgement, or a later request's answer."""
    answered_ns: int = 0
    asked: list[tuple[pb.AttachResponse, pb.AttachRequest | None]] = field(default_factory=list)
    """memory_read, memory_write and invoke, each with its answer; None: there was none."""

    size: int = 0
    """Bytes of request and asked."""
    waiting: dict[int, int] = field(init=False)
    """Of a batch: by vCPU, the last sequence that was not acknowledged."""

    def __post_init__(self) -> None:
        self.waiting = {trap.vcpu: trap.sequence for trap in self.request.posted.traps}

    @property
    def traps(self) -> Sequence[pb.Trap]:
        """The calls of the request; none for a reset."""
        return (self.request.trap,) if self.request.HasField("trap") else self.request.posted.traps

    def take(self, response: pb.AttachResponse) -> bool:
        """Look at a response; True when the request is answered with it."""
        if self.request.HasField("trap"):
            trap = self.request.trap
            return (response.reply.vcpu, response.reply.sequence) == (trap.vcpu, trap.sequence)
        if self.request.HasField("reset"):
            return response.HasField("reset_done") and response.reset_done.count == self.request.reset.count
        done = response.acknowledge
        if done.sequence >= self.waiting.get(done.vcpu, 1 << 64):
            del self.waiting[done.vcpu]
        return not self.waiting


@dataclass(frozen=True)
class Event:
    """What a back end said without being asked: interrupt, action, dirty, inventory, crq_entries.

    Also memory_read and memory_write of a DMA window, which a device sends whenever it is ready to.
    """

    time_ns: int
    message: pb.AttachResponse


@dataclass(frozen=True)
class Introduction:
    """The first hello that was answered, and the offer."""

    time_ns: int
    hello: pb.Hello
    offer: pb.Offer


@dataclass(frozen=True)
class Seed:
    """A tree that the machine started with, at a reset."""

    time_ns: int
    tree: rpb.SeedTree


Item = Step | Event | Introduction | Seed
"""What a conversation is made of; trees concern every link."""


class Conversation:
    """Makes a link's items of its records, which are fed in order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.offer: pb.Offer | None = None
        self.connections = 0
        self._hello: tuple[int, pb.Hello] | None = None
        self._unanswered: deque[Step] = deque()
        self._bytes = 0
        """Of what is unanswered."""
        self._seen: dict[int, int] = {}
        """Sequence of the newest call of each vCPU."""
        self._resets = 0

    @property
    def unanswered(self) -> int:
        """Requests whose answer has not come."""
        return len(self._unanswered)

    def feed(self, record: rpb.Record) -> Iterator[Item]:
        """Take the next record and return what is complete with it. Raises RecordingError when it breaks the contract."""
        match record.WhichOneof("event"):
            case "request":
                self._request(record.time_ns, record.request)
            case "response":
                yield from self._response(record.time_ns, record.response)

    def _request(self, time_ns: int, request: pb.AttachRequest) -> None:
        match request.WhichOneof("message"):
            case "hello":
                self._hello = (time_ns, request.hello)
            case "trap":
                if self._is_new(request.trap):
                    self._wait(Step(time_ns, request))
            case "posted":
                traps = [trap for trap in request.posted.traps if self._is_new(trap)]
                if traps:
                    self._wait(Step(time_ns, pb.AttachRequest(posted=pb.PostedBatch(traps=traps))))
            case "reset":
                if request.reset.count > self._resets:
                    self._resets = request.reset.count
                    self._wait(Step(time_ns, request))
            case "memory_result":
                self._answer("memory", request.memory_result.id, request)
            case "invoke_result":
                self._answer("invoke", request.invoke_result.id, request)

    def _is_new(self, trap: pb.Trap) -> bool:
        if trap.sequence <= self._seen.get(trap.vcpu, 0):
            return False
        if self.offer is None or trap.route >= len(self.offer.routes):
            raise RecordingError(f"the recording has a call to {self.name} that it did not offer")
        self._seen[trap.vcpu] = trap.sequence
        return True

    def _wait(self, step: Step) -> None:
        self._unanswered.append(step)
        if len(self._unanswered) > MAX_UNANSWERED:
            raise RecordingError(f"the recording has {MAX_UNANSWERED} calls to {self.name} without an answer")
        self._keep(step, step.request.ByteSize())

    def _keep(self, step: Step, size: int) -> None:
        step.size += size
        self._bytes += size
        if self._bytes > MAX_BYTES:
            raise RecordingError(f"the recording has calls to {self.name} without an answer of more than {MAX_BYTES >> 20} MiB")

    def _response(self, time_ns: int, response: pb.AttachResponse) -> Iterator[Item]:
        match response.WhichOneof("message"):
            case "offer":
                self.connections += 1
                if self.offer is None and self._hello is not None:
                    self.offer = response.offer
                    yield Introduction(*self._hello, response.offer)
            case "memory_read" if response.memory_read.liobn:
                yield Event(time_ns, response)
            case "memory_write" if response.memory_write.liobn:
                yield Event(time_ns, response)
            case "memory_read" | "memory_write" | "invoke":
                self._ask(response)
            case "reply" | "acknowledge" | "reset_done":
                yield from self._finish(time_ns, response)
            case "interrupt" | "action" | "dirty" | "inventory" | "crq_entries":
                yield Event(time_ns, response)

    def _ask(self, response: pb.AttachResponse) -> None:
        if self._unanswered:
            asked = self._unanswered[0].asked
            if all(response != known for known, answer in asked[-4:] if answer is None):  # Else repeated after a reconnect.
                asked.append((response, None))
                self._keep(self._unanswered[0], response.ByteSize())
            if len(asked) > MAX_ASKED:
                raise RecordingError(f"the recording has a call in which {self.name} asks {MAX_ASKED} times")

    def _answer(self, kind: str, number: int, answer: pb.AttachRequest) -> None:
        for step in self._unanswered:
            for index in range(len(step.asked) - 1, -1, -1):
                asked, known = step.asked[index]
                if known is None and _number(asked, kind) == number:
                    step.asked[index] = (asked, answer)
                    self._keep(step, answer.ByteSize())
                    return

    def _finish(self, time_ns: int, response: pb.AttachResponse) -> Iterator[Item]:
        answered = {id(step) for step in self._unanswered if step.take(response)}
        # Requests are handled in order, so the batches before are done as well; their acknowledgements may come later.
        done: list[Step] = []
        before: list[Step] = []
        for step in self._unanswered:
            if id(step) in answered:
                done += [*before, step]
                before.clear()
            elif step.request.HasField("posted"):
                before.append(step)
        for step in done:
            self._unanswered.remove(step)
            self._bytes -= step.size
            step.response, step.answered_ns = response, time_ns
            yield step


def _number(asked: pb.AttachResponse, kind: str) -> int | None:
    name = asked.WhichOneof("message")
    if name is None or not name.startswith(kind):
        return None
    return int(getattr(asked, name).id)


class Recording:
    """A recording's records, told apart by link.

    Args:
        records: in order.
        name: of the file, for messages.

    Raises RecordingError when it does not begin as one must.
    """

    def __init__(self, records: Iterable[rpb.Record], name: str) -> None:
        self._records = iter(records)
        first = next(self._records, None)
        if first is None or not first.HasField("start") or not 1 <= len(first.start.backends) <= MAX_LINKS:
            raise RecordingError(f"{name} has no whole record of how it began", "nothing can be read from it")
        self.name = name
        self.start = first.start
        self.end: rpb.RecordingEnd | None = None
        """Once all records have come: how it ended; None: it was cut off."""
        self.conversations = [Conversation(backend) for backend in first.start.backends]

    def records(self) -> Iterator[rpb.Record]:
        """Return the records after the first one; once."""
        for record in self._records:
            if record.link > len(self.conversations):
                raise RecordingError(f"{self.name} is damaged: a record of link {record.link} of {len(self.conversations)}")
            if record.HasField("end"):
                self.end = record.end
            yield record

    def note(self, cut: str) -> str:
        """Return what is to be said about its end; empty when it was ended in order. cut: what its reader says."""
        if cut or self.end is not None:
            return cut
        return f"{self.name} has no end: cpu_service was killed, could not write any more, or is recording still"

    def items(self, *links: str) -> Iterator[tuple[str, Item]]:
        """Return what the links said, in order, with their names; all of them when none is named. Once."""
        for record in self.records():
            if record.link == 0:
                if record.HasField("seed_tree"):
                    yield "", Seed(record.time_ns, record.seed_tree)
                continue
            conversation = self.conversations[record.link - 1]
            if not links or conversation.name in links:
                for item in conversation.feed(record):
                    yield conversation.name, item
