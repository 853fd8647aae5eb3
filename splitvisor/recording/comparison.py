# SPDX-License-Identifier: GPL-2.0-or-later
"""What a replay compares, and how it tells of differences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from splitvisor.recording.text import asked_text
from splitvisor.rpc import trap_pb2 as pb

MAX_UNASKED = 4096
"""Interrupt sources that there can be; more than the other messages of any run."""
LINE = 200
"""Characters of a message that are shown."""


class TooManyError(Exception):
    """More than any run has."""


@dataclass(frozen=True)
class Difference:
    """Something that the back end did not do as recorded."""

    number: int
    """Of the call among those to this back end, from 1; 0: not in a call."""
    time_ns: int
    """Of the call in the recording."""
    call: str
    """The call, decoded; what else it was about when number is 0."""
    what: str
    """What differs: "reply", "memory write", ..."""
    expected: str
    got: str

    def __str__(self) -> str:
        place = f"call {self.number} at {self.time_ns / 1e9:.6f} s, {self.call}" if self.number else self.call
        return f"{place}: {self.what}\n  recorded  {self.expected}\n  now       {self.got}"


@dataclass
class Outcome:
    """What a replay found."""

    calls: int = 0
    differences: int = 0
    unanswered: int = 0
    """Calls whose answer is not in the recording; they were not made."""
    left_out: Counter[str] = field(default_factory=Counter)
    """What was not compared, with the reason, and how often."""
    failure: str = ""
    """Why the replay ended early; empty when it did not."""

    @property
    def same(self) -> bool:
        """Whether everything was compared and nothing differed."""
        return not self.differences and not self.failure


class Unasked:
    """What a back end said without being asked."""

    def __init__(self) -> None:
        self.sources: set[int] = set()
        """Of interrupts."""
        self.messages: list[pb.AttachResponse] = []
        """Actions and inventories."""

    def add(self, message: pb.AttachResponse) -> None:
        """Add a message. Raises TooManyError when there are too many."""
        if message.HasField("interrupt"):
            self.sources.add(message.interrupt.source)
        elif message.WhichOneof("message") in {"action", "inventory"}:
            self.messages.append(message)
        if max(len(self.sources), len(self.messages)) > MAX_UNASKED:
            raise TooManyError(f"more than {MAX_UNASKED} messages that nobody asked for")


def route_key(route: pb.Route) -> tuple[int, str]:
    """What a route is known by."""
    return route.kind, route.name


def without_keys(route: pb.Route) -> pb.Route:
    """Return a route without the keys that its back end owned."""
    copy = pb.Route()
    copy.CopyFrom(route)
    copy.ClearField("keys")
    return copy


def unequal(recorded: Sequence[Any], live: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """Pairs that are not equal; None where one has fewer."""
    for index in range(max(len(recorded), len(live))):
        one = recorded[index] if index < len(recorded) else None
        other = live[index] if index < len(live) else None
        if one != other:
            yield one, other


def first_difference(recorded: pb.MemoryBlock | None, live: pb.MemoryBlock | None) -> tuple[str, str]:
    """Describe two blocks of memory from the first byte that differs."""
    if recorded is None or live is None or recorded.address != live.address:
        return _place(recorded), _place(live)
    pairs = zip(recorded.data, live.data, strict=False)
    offset = next((index for index, (one, other) in enumerate(pairs) if one != other), min(len(recorded.data), len(live.data)))
    return _place(recorded, offset), _place(live, offset)


def _place(block: pb.MemoryBlock | None, offset: int = 0) -> str:
    if block is None:
        return "no write"
    shown = block.data[offset : offset + 16].hex() or "ends here"
    return f"{block.address:#x}+{len(block.data)}, from byte {offset}: {shown}"


def without_id(message: pb.AttachResponse) -> pb.AttachResponse:
    """Return what a back end asks for without the number that it chose."""
    copy = pb.AttachResponse()
    copy.CopyFrom(message)
    for name in ("memory_write", "invoke"):
        if copy.HasField(name):
            getattr(copy, name).ClearField("id")
    return copy


def line(message: Any) -> str:
    """Return a message in one line; None is nothing."""
    return "nothing" if message is None else str(message).replace("\n", " ").strip()[:LINE] or "empty"


def messages_text(messages: Sequence[pb.AttachResponse]) -> str:
    """Describe messages in one line."""
    return "; ".join(asked_text(message) for message in messages) or "nothing"
