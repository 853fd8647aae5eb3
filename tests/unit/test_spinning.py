# SPDX-License-Identifier: GPL-2.0-or-later
"""How a vCPU that spins is told from one that works, and how long it rests."""

from __future__ import annotations

from cpu_service.vcpus.spinning import FIRST_REST_NS, LONGEST_REST_NS, LOOK_NS, SpinWatch


def turn(watch: SpinWatch, began: int, before: bytes, after: bytes, length: int = LOOK_NS) -> None:
    watch.begin(before, began)
    watch.end(after, began + length)


def test_vcpu_whose_registers_change_does_not_rest() -> None:
    watch = SpinWatch()
    turn(watch, 0, b"a", b"b")
    assert not watch.rests(LOOK_NS)
    assert not watch.is_suspect


def test_vcpu_whose_registers_stay_rests_longer_each_time_up_to_a_bound() -> None:
    watch, now, rests = SpinWatch(), 0, []
    for _ in range(6):
        turn(watch, now, b"a", b"a")
        rests.append(watch.resting_until_ns - (now + LOOK_NS))
        assert watch.rests(watch.resting_until_ns - 1)
        assert not watch.rests(watch.resting_until_ns)
        now = watch.resting_until_ns
    assert rests[:4] == [FIRST_REST_NS << doubled for doubled in range(4)]
    assert rests[3:] == [LONGEST_REST_NS] * 3
    assert watch.is_suspect


def test_work_ends_the_suspicion() -> None:
    watch = SpinWatch()
    turn(watch, 0, b"a", b"a")
    turn(watch, LONGEST_REST_NS, b"a", b"b")
    assert not watch.is_suspect
    assert not watch.rests(LONGEST_REST_NS + LOOK_NS)


def test_turn_that_was_cut_short_proves_nothing() -> None:
    watch = SpinWatch()
    turn(watch, 0, b"a", b"a", LOOK_NS - 1)
    assert not watch.is_suspect


def test_interrupt_ends_a_rest() -> None:
    watch = SpinWatch()
    turn(watch, 0, b"a", b"a")
    watch.wake()
    assert not watch.rests(LOOK_NS)
