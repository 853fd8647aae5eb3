# SPDX-License-Identifier: GPL-2.0-or-later
"""How often each call of a recording was made, and how long its guest waited."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from splitvisor.recording.conversation import Event, Introduction, Recording, Step
from splitvisor.recording.text import terminal_bytes, typed_bytes
from splitvisor.rpc import machine_pb2 as mpb


@dataclass
class CallStatistics:
    """Of one call of one back end."""

    link: str
    name: str
    count: int = 0
    posted: int = 0
    """Those that the guest did not wait for."""
    waited_ns: int = 0
    """In all, as seen where cpu_service meets gRPC."""
    longest_ns: int = 0

    @property
    def mean_us(self) -> float:
        """Microseconds that one call waited; 0 when all were posted."""
        waited = self.count - self.posted
        return self.waited_ns / waited / 1000 if waited else 0.0


@dataclass
class Statistics:
    """Of a recording."""

    calls: list[CallStatistics] = field(default_factory=list)
    """The most frequent first."""
    local: list[mpb.CallCount] = field(default_factory=list)
    """Calls that cpu_service answered itself; none when the recording was cut off."""
    messages: int = 0
    message_bytes: int = 0
    duration_ns: int = 0
    interrupts: Counter[int] = field(default_factory=Counter)
    """Those outside of replies, by source."""
    connections: dict[str, int] = field(default_factory=dict)
    written: int = 0
    """Bytes that the guest wrote to terminals."""
    typed: int = 0
    """Bytes that it read from them."""
    waits: int = 0
    """How often recording held the machine up."""


def statistics(recording: Recording) -> Statistics:
    """Read a recording to its end. Raises RecordingError."""
    found = Statistics()
    calls: dict[tuple[str, str], CallStatistics] = {}
    for record in recording.records():
        found.duration_ns = record.time_ns
        if record.link == 0:
            continue
        found.messages += 1
        found.message_bytes += record.ByteSize()
        conversation = recording.conversations[record.link - 1]
        for item in conversation.feed(record):
            match item:
                case Event() if item.message.HasField("interrupt"):
                    found.interrupts[item.message.interrupt.source] += 1
                case Introduction():
                    for route in item.offer.routes:
                        calls[conversation.name, route.name] = CallStatistics(conversation.name, route.name)
                case Step() if conversation.offer is not None:
                    names = [conversation.offer.routes[trap.route].name for trap in item.traps]
                    for name, trap in zip(names, item.traps, strict=True):
                        _count(calls[conversation.name, name], item)
                        found.written += len(terminal_bytes(trap)) if name == "H_PUT_TERM_CHAR" else 0
                    if names == ["H_GET_TERM_CHAR"]:
                        found.typed += len(typed_bytes(item.response.reply))
    found.connections = {each.name: each.connections for each in recording.conversations}
    found.calls = sorted((each for each in calls.values() if each.count), key=lambda each: -each.count)
    if recording.end is not None:
        remote = {each.name for each in found.calls}
        found.local = [count for count in recording.end.calls if count.owner == "local" and count.name not in remote]
        found.waits = recording.end.waits
    return found


def _count(call: CallStatistics, step: Step) -> None:
    call.count += 1
    if step.request.HasField("posted"):
        call.posted += 1
    else:
        waited = step.answered_ns - step.time_ns
        call.waited_ns += waited
        call.longest_ns = max(call.longest_ns, waited)
