# SPDX-License-Identifier: GPL-2.0-or-later
"""The counting RTAS call, with a guest that makes it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from examples.counter_rtas.counter_rtas import BACKEND, COUNT, MAX_AMOUNT, MAX_LABEL, CounterSession
from splitvisor.backend import Backend
from splitvisor.papr.codes import RtasStatus
from splitvisor.testing import RunningMachine, ScriptedGuest, Traps

pytest_plugins = ["splitvisor.testing"]


@pytest.fixture
def backends() -> Sequence[Backend]:
    return [BACKEND]


def test_it_counts_by_label(guest: ScriptedGuest, machine: RunningMachine, traps: Traps) -> None:
    assert guest.rtas(COUNT, "boots", 2, returns=3) == (0, 2, 1)
    assert guest.rtas(COUNT, "panics", 1, returns=3) == (0, 1, 2)
    assert guest.rtas(COUNT, "boots", 3, returns=3) == (0, 5, 2)
    session = machine.session()
    assert isinstance(session, CounterSession)
    assert session.counters == {b"boots": 5, b"panics": 1}
    assert [trap.outputs for trap in traps.named(COUNT)] == [(2, 1), (1, 2), (5, 2)]


@pytest.mark.parametrize(("label", "amount"), [("x" * MAX_LABEL, 1), ("x", MAX_AMOUNT + 1), (0xFFFF_FFF0, 1)])
def test_what_makes_no_sense_is_refused(guest: ScriptedGuest, label: str | int, amount: int) -> None:
    assert guest.rtas(COUNT, label, amount, returns=3)[0] == RtasStatus.PARAMETER_ERROR


def test_other_counts_of_words_are_refused(guest: ScriptedGuest, traps: Traps) -> None:
    assert guest.rtas(COUNT, "x", returns=3)[0] == RtasStatus.PARAMETER_ERROR
    assert guest.rtas(COUNT, "x", 1, returns=2)[0] == RtasStatus.PARAMETER_ERROR
    assert len(traps) == 0, "the handler is not asked"
