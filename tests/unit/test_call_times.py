# SPDX-License-Identifier: GPL-2.0-or-later
"""How durations are counted, and what is made of them."""

from __future__ import annotations

import pytest

from splitvisor.observe.call_times import BOUNDS, CallTimes, ResultClass, hypercall_class, quantile, rtas_class
from splitvisor.papr.codes import H, RtasStatus
from splitvisor.rpc import machine_pb2 as pb


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (H.SUCCESS, ResultClass.SUCCESS),
        (H.BUSY, ResultClass.BUSY),
        (H.LONG_BUSY_10_SEC, ResultClass.BUSY),
        (H.CLOSED, ResultClass.OTHER),
        (H.PARAMETER, ResultClass.ERROR),
        (1 << 62, ResultClass.OTHER),
    ],
)
def test_a_hypercalls_result_has_a_class(result: int, expected: ResultClass) -> None:
    assert hypercall_class(result) is expected


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (RtasStatus.SUCCESS, ResultClass.SUCCESS),
        (RtasStatus.BUSY, ResultClass.BUSY),
        (9900, ResultClass.BUSY),
        (RtasStatus.NO_ERRORS_FOUND, ResultClass.OTHER),
        (RtasStatus.HARDWARE_ERROR, ResultClass.ERROR),
    ],
)
def test_an_rtas_status_has_a_class_signed_or_not(status: int, expected: ResultClass, unsigned: bool) -> None:
    assert rtas_class(status & 0xFFFF_FFFF if unsigned else status) is expected


def test_classes_are_numbered_and_named_as_in_the_contract() -> None:
    assert {f"RESULT_CLASS_{each.name}": int(each) for each in ResultClass} == {
        name: number for name, number in pb.ResultClass.items() if number
    }


def test_durations_fall_into_the_bucket_whose_bound_they_do_not_exceed() -> None:
    times = CallTimes()
    for seconds in (0.0, BOUNDS[0], BOUNDS[0] * 1.01, BOUNDS[-1], BOUNDS[-1] + 1):
        times.observe("call", ResultClass.SUCCESS, seconds)
    times.observe("call", ResultClass.ERROR, 1.0)
    good, bad = times.of("call")
    assert (good.result, bad.result) == (ResultClass.SUCCESS, ResultClass.ERROR)
    assert good.latency.counts[:2] == [2, 1]
    assert good.latency.counts[-2:] == [1, 1]
    assert sum(good.latency.counts) == 5
    assert times.seconds("call") == pytest.approx(2 * BOUNDS[-1] + 2, rel=1e-3)
    assert times.seconds("another") == 0


def test_a_quantile_lies_in_the_bucket_that_it_falls_into() -> None:
    counts = [0] * (len(BOUNDS) + 1)
    assert quantile(counts, 0.99) == 0
    counts[3], counts[10] = 98, 2
    assert BOUNDS[2] < quantile(counts, 0.5) <= BOUNDS[3]
    assert BOUNDS[9] < quantile(counts, 0.99) <= BOUNDS[10]
    counts[-1] = 1000
    assert quantile(counts, 0.99) == BOUNDS[-1], "beyond every bound only the last bound is known"
