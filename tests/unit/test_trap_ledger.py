# SPDX-License-Identifier: GPL-2.0-or-later
"""What a link remembers of its calls."""

from __future__ import annotations

from cpu_service.link.ledger import TrapLedger
from splitvisor.rpc import trap_pb2 as pb


def test_credit_and_position_follow_acknowledgements() -> None:
    ledger = TrapLedger()
    for _ in range(3):
        assert ledger.take_credit(0, 8, 24)
        ledger.posted(pb.Trap(vcpu=1, sequence=ledger.next(1), route=0), 8)
    assert not ledger.take_credit(0, 1, 24)
    ledger.acknowledged(1, 2)
    assert [trap.sequence for trap in ledger.unacknowledged] == [3]
    assert [(each.vcpu, each.sequence) for each in ledger.positions] == [(1, 2)]
    assert ledger.take_credit(0, 16, 24)


def test_vcpus_that_a_back_end_invents_are_not_remembered() -> None:
    ledger = TrapLedger()
    ledger.next(0)
    for vcpu in range(1000):
        ledger.acknowledged(vcpu, 5)
    assert [each.vcpu for each in ledger.positions] == [0]


def test_calls_that_were_given_up_are_told_once() -> None:
    ledger = TrapLedger()
    for _ in range(2):
        trap = pb.Trap(vcpu=0, sequence=ledger.next(0), skipped=ledger.skipped(0))
        ledger.give_up(trap)
    assert [ledger.skipped(0), ledger.skipped(0)] == [2, 0]
