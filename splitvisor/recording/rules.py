# SPDX-License-Identifier: GPL-2.0-or-later
"""What differs from run to run on purpose, and is therefore not compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from splitvisor.rpc import device_tree_pb2 as dt
from splitvisor.rpc import trap_pb2 as pb

MASKED = 0
"""Stands in a masked message for every value that was left out."""


@dataclass(frozen=True)
class Rule:
    """One call whose answer depends on more than its arguments and what came before."""

    call: str
    """The route's name."""
    why: str
    mask: Callable[[pb.Reply], None]
    """Takes out of a reply what may differ."""
    service: bytes = b""
    """H_OF_CLIENT: the client service, as the trap's operands name it; empty: any."""

    def applies(self, name: str, trap: pb.Trap) -> bool:
        """Whether this is about a trap."""
        return name == self.call and (not self.service or any(block.data == self.service for block in trap.operands))


def _returns_after_status(reply: pb.Reply) -> None:
    for index in range(1, len(reply.returns)):
        reply.returns[index] = MASKED


def _outputs(reply: pb.Reply) -> None:
    for index in range(len(reply.outputs)):
        reply.outputs[index] = MASKED


def _last_write(reply: pb.Reply) -> None:
    if reply.writes:
        reply.writes[-1].data = bytes(len(reply.writes[-1].data))


RULES: tuple[Rule, ...] = (
    Rule("get-time-of-day", "the host's clock", _returns_after_status),
    Rule("H_RANDOM", "the host's random numbers", _outputs),
    Rule("H_OF_CLIENT", "milliseconds is the host's clock", _last_write, service=b"milliseconds\0"),
)
"""Rules for replies."""

TREE_PROPERTIES = frozenset({("/chosen", "rng-seed"), ("/", "ibm,partition-name")})
"""What differs in trees that are built of the same: random numbers, and the name that the machine has while it is replayed."""


def rules_for(name: str, trap: pb.Trap) -> Sequence[Rule]:
    """Return the rules that are about a trap of the route of this name."""
    return [rule for rule in RULES if rule.applies(name, trap)]


def masked_reply(name: str, trap: pb.Trap, reply: pb.Reply) -> pb.Reply:
    """Return the reply to a trap without what may differ, and without its number."""
    masked = pb.Reply()
    masked.CopyFrom(reply)
    masked.ClearField("vcpu")
    masked.ClearField("sequence")
    for rule in rules_for(name, trap):
        rule.mask(masked)
    return masked


def masked_request(request: dt.BuildTreeRequest) -> dt.BuildTreeRequest:
    """Return what a tree is built from without the VM's name and identity, which a machine with another name has its own of."""
    masked = dt.BuildTreeRequest()
    masked.CopyFrom(request)
    masked.ClearField("vm")
    masked.ClearField("uuid")
    return masked
