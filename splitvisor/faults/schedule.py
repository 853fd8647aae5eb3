# SPDX-License-Identifier: GPL-2.0-or-later
"""Decides which messages of a stream meet which faults: by the seed and by the messages, and by nothing else."""

from __future__ import annotations

import random
from dataclasses import dataclass

from splitvisor.faults.scenario import Direction, Fault, Scenario


@dataclass(frozen=True)
class Happening:
    """A fault that meets a message."""

    place: int
    """Of the fault in the scenario."""
    fault: Fault
    number: int
    """Of the message among those that the fault looks at, from 1."""
    seconds: float
    """How long, for what takes time."""


class _Rule:
    """One fault on one VM's stream: counts, and draws, once for each message that it looks at."""

    def __init__(self, place: int, fault: Fault, seed: str) -> None:
        self._place, self._fault = place, fault
        self._source = random.Random(f"{seed}/{place}")
        self._seen = self._met = 0

    def look(self, direction: Direction, message: str) -> Happening | None:
        fault = self._fault
        if direction is not fault.direction or message not in fault.messages:
            return None
        self._seen += 1
        chance, share = self._source.random(), self._source.random()
        meets = self._seen in fault.at if fault.at else self._seen % fault.every == 0 and chance < fault.probability
        if not meets or (fault.limit and self._met >= fault.limit):
            return None
        self._met += 1
        return Happening(self._place, fault, self._seen, fault.seconds * (share if fault.kind.name == "jitter" else 1.0))


class Schedule:
    """The faults of one VM's stream to one back end, over all its connections.

    Args:
        scenario: what may go wrong.
        backend: whose stream it is.
        vm: the VM; each has its own draw.
    """

    def __init__(self, scenario: Scenario, backend: str, vm: str) -> None:
        self._rules = [_Rule(place, fault, f"{scenario.seed}/{backend}/{vm}") for place, fault in scenario.concerning(backend)]

    def look(self, direction: Direction, message: str) -> list[Happening]:
        """Return what a message meets, in the order of the scenario."""
        return [happening for rule in self._rules if (happening := rule.look(direction, message)) is not None]
