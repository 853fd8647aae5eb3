# SPDX-License-Identifier: GPL-2.0-or-later
"""What two recordings differ in, whatever the times: calls and answers of each back end, in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from splitvisor.recording.conversation import Event, Recording, Step
from splitvisor.recording.rules import masked_reply
from splitvisor.recording.text import asked_text, call_text, reply_text

WINDOW = 128
"""Entries that are looked ahead for a place where both go on alike."""


class Entry(NamedTuple):
    """A call or an event."""

    key: tuple[object, ...]
    """Entries are the same when this is."""
    text: str


class Change(NamedTuple):
    """An entry that only one of two recordings has."""

    sign: str
    """"-": the first has it, "+": the second."""
    entry: Entry


def entries(recording: Recording, link: str, wanted: Callable[[str], bool]) -> Iterator[Entry]:
    """Return what one link of a recording says, without what differs on purpose. wanted: of calls, by name."""
    conversation = next((each for each in recording.conversations if each.name == link), None)
    for _, item in recording.items(link):
        if isinstance(item, Event) and wanted(""):
            text = asked_text(item.message)
            yield Entry((text,), text)
        if not isinstance(item, Step) or conversation is None or conversation.offer is None:
            continue
        if not item.traps and wanted(""):
            yield Entry(("reset",), "reset")
        for trap in item.traps:
            route = conversation.offer.routes[trap.route]
            if not wanted(route.name):
                continue
            text = call_text(route, trap)
            operands = tuple(block.SerializeToString() for block in trap.operands)
            # A guest's call can be posted one time and waited for the next; its answer says then no more than success.
            key: tuple[object, ...] = (route.name, trap.vcpu, tuple(trap.arguments), trap.returns, operands)
            if item.request.HasField("trap"):
                reply = masked_reply(route.name, trap, item.response.reply)
                text = f"{text} -> {reply_text(route, reply)}"
                key += (reply.SerializeToString(deterministic=True),)
            yield Entry(key, text)


def changes(before: Iterable[Entry], after: Iterable[Entry]) -> Iterator[Change]:
    """Compare two sequences, looking WINDOW entries ahead; memory does not grow with their length."""
    rests = iter(before), iter(after)
    left: deque[Entry] = deque()
    right: deque[Entry] = deque()
    while True:
        for ahead, rest in ((left, rests[0]), (right, rests[1])):
            ahead.extend(islice(rest, WINDOW - len(ahead)))
        if not left and not right:
            return
        if left and right and left[0].key == right[0].key:
            left.popleft()
            right.popleft()
            continue
        skip_left, skip_right = _meeting(left, right)
        for _ in range(skip_left):
            yield Change("-", left.popleft())
        for _ in range(skip_right):
            yield Change("+", right.popleft())


def _meeting(left: deque[Entry], right: deque[Entry]) -> tuple[int, int]:
    """How many entries of each to skip to get to where both go on alike; one of each when that is not in sight."""
    places: dict[tuple[object, ...], int] = {}
    for place, entry in enumerate(right):
        places.setdefault(entry.key, place)
    meetings = [(place, places[entry.key]) for place, entry in enumerate(left) if entry.key in places]
    return min(meetings, key=sum, default=(min(1, len(left)), min(1, len(right))))
