# SPDX-License-Identifier: GPL-2.0-or-later
"""Watching calls: what is seen, what it costs the guest, and that nothing of it is left when nobody watches."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cpu_service.observe.trap_trace import BUFFERED, MAX_WATCHERS, Seen, TooManyWatchersError, TrapTrace, Watcher, WatchError
from splitvisor.net.times import duration
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from splitvisor.papr.rtas import FIRST_FREE_TOKEN
from splitvisor.rpc import machine_pb2 as pb
from tests.component.test_trap_router import Routed
from tests.component.trap_backend import H_ADD, H_FAIL, H_HELD, H_LOG, H_LOG_HELD, MAX_SIZE, UNIT, ThreadBackend
from tests.component.trap_client import MASK, RAM_BYTES


@pytest.fixture
def routed(backend: ThreadBackend) -> Iterator[Routed]:
    routed = Routed(backend)
    yield routed
    routed.close()


@pytest.fixture
def trace(routed: Routed) -> TrapTrace:
    return TrapTrace(routed.engine, routed.registry, routed.scheduler, routed.ram)


class Watching:
    """A watcher, and how often it was woken."""

    def __init__(self, trace: TrapTrace, request: pb.WatchTrapsRequest) -> None:
        self.woken = 0
        self.watcher = Watcher(request, self._wake)
        trace.add(self.watcher)

    def _wake(self) -> None:
        self.woken += 1

    def seen(self) -> list[Seen]:
        seen, missed = self.watcher.take(BUFFERED)
        assert missed == 0
        return seen


def watch(trace: TrapTrace, **what: object) -> Watching:
    return Watching(trace, pb.WatchTrapsRequest(**what))  # type: ignore[arg-type]  # any field


def test_a_call_takes_its_usual_way_unless_somebody_watches(routed: Routed, trace: TrapTrace) -> None:
    usual = routed.router.dispatch
    assert routed.engine.on_hypercall is usual
    first, second = watch(trace), watch(trace)
    assert routed.engine.on_hypercall is not usual
    trace.remove(first.watcher)
    trace.remove(first.watcher)
    assert routed.engine.on_hypercall is not usual
    trace.remove(second.watcher)
    assert routed.engine.on_hypercall is usual
    assert trace.watchers == 0


def test_hypercalls_are_seen_with_arguments_result_and_owner(routed: Routed, trace: TrapTrace) -> None:
    watching = watch(trace)
    assert routed.hypercall(H_ADD, 40) == H.SUCCESS
    assert routed.scheduler.loaded.gpr[4] == 40, "the outputs are the guest's as ever"
    assert routed.hypercall(H_FAIL) == H.HARDWARE
    assert routed.hypercall(H_LOG, UNIT, 1, 7) == H.SUCCESS
    assert routed.hypercall(0xF300, 1, 2, 3, 4) == H.FUNCTION
    add, fail, log, unowned = watching.seen()
    backend = routed.links[0].name
    assert (add.name, add.owner, add.arguments, add.result, add.failed) == ("H_ADD", backend, [40], 0, False)
    assert (fail.result, fail.failed, fail.posted) == (H.HARDWARE, True, False)
    assert (log.posted, log.arguments) == (True, [UNIT, 1, 7])
    assert (unowned.owner, unowned.result, unowned.arguments) == ("", H.FUNCTION, [1, 2, 3, 4])
    assert add.duration_ns > 0
    assert add.message().arguments == [40]
    assert watching.woken == 1, "one wake for what waits together"


def test_a_call_without_credit_is_seen_as_busy(routed: Routed, trace: TrapTrace, backend: ThreadBackend) -> None:
    watching = watch(trace)
    for tag in range(5):
        routed.hypercall(H_LOG_HELD, UNIT, MAX_SIZE, tag)
    assert [(each.posted, each.result) for each in watching.seen()] == [(True, 0)] * 4 + [(False, H.BUSY)]
    assert routed.links[0].posted.stalls == 1
    backend.open_gate()


def test_rtas_calls_are_seen_as_what_they_are(routed: Routed, trace: TrapTrace) -> None:
    watching = watch(trace)
    assert routed.rtas(FIRST_FREE_TOKEN, 3, 4, returns=2)[0] == H.SUCCESS
    routed.rtas(FIRST_FREE_TOKEN, 3, returns=2)
    routed.rtas(0x1234, returns=1)
    good, wrong, unknown = watching.seen()
    assert (good.kind, good.name, good.arguments, good.returns) == (pb.WATCHED_KIND_RTAS, "test,sum", [3, 4], [0, 7])
    assert (good.owner, good.failed) == (routed.links[0].name, False)
    assert (wrong.failed, wrong.result) == (True, H.SUCCESS)
    assert (unknown.name, unknown.owner, unknown.failed) == ("rtas 0x1234", "", True)


@pytest.mark.parametrize("block", [RAM_BYTES - 8, RAM_BYTES, MASK >> 4, 0x200])
@pytest.mark.parametrize("token", [Hcall.H_RTAS, Hcall.H_OF_CLIENT])
def test_a_block_that_is_none_is_seen_as_the_hypercall(routed: Routed, trace: TrapTrace, token: int, block: int) -> None:
    routed.ram.map[0x200:0x20C] = b"\xff" * 12
    watching = watch(trace, local=True)
    assert routed.hypercall(token, block) in (H.PARAMETER, H.FUNCTION)
    [seen] = watching.seen()
    assert (seen.name, seen.arguments, seen.failed) == (Hcall(token).name, [block], True)


def test_strings_of_a_client_service_outside_ram_are_empty(routed: Routed, trace: TrapTrace) -> None:
    watching = watch(trace)
    name = b"finddevice\0"
    routed.ram.map[0x300 : 0x300 + len(name)] = name
    for service, path in ((0x300, 0xFFFF_FFFF), (0xFFFF_FFFF, 0x300)):
        words = (service, 1, 1, path, 0xFFFF_FFFF)
        routed.ram.map[0x200:0x214] = b"".join(word.to_bytes(4, "big") for word in words)
        routed.hypercall(Hcall.H_OF_CLIENT, 0x200)
    found, nameless = watching.seen()
    assert (found.name, found.strings) == ("finddevice", {0: b""})
    assert (nameless.name, nameless.strings) == ("", {})


def test_local_calls_are_seen_when_asked_for(routed: Routed, trace: TrapTrace) -> None:
    without, everything = watch(trace), watch(trace, local=True)
    routed.hypercall(Hcall.H_CEDE)
    routed.hypercall(H_ADD, 1)
    assert [each.owner for each in without.seen()] == [routed.links[0].name]
    assert [each.name for each in everything.seen()] == ["H_CEDE", "H_ADD"]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"calls": ["*_add", "h_c*"], "local": True}, 2),
        ({"calls": ["h_ced[a-e]"], "local": True}, 1),
        ({"calls": ["CEDE"], "local": True}, 0),
        ({"owners": ["local"], "local": True}, 1),
        ({"owners": ["nobody"]}, 0),
        ({"vcpus": [0]}, 2),
        ({"vcpus": [1]}, 0),
        ({"failed": True, "local": True}, 1),
        ({"slower_than": duration(3600)}, 0),
    ],
)
def test_filters_choose(routed: Routed, trace: TrapTrace, request_: dict[str, object], expected: int) -> None:
    watching = watch(trace, **request_)
    routed.hypercall(Hcall.H_CEDE)
    routed.hypercall(H_ADD, 1)
    routed.hypercall(0xF300)
    assert len(watching.seen()) == expected


def test_a_slow_watcher_misses_calls_and_the_guest_none(routed: Routed, trace: TrapTrace) -> None:
    slow, other = watch(trace, local=True), watch(trace, local=True, calls=["none"])
    for _ in range(BUFFERED + 10):
        assert routed.hypercall(Hcall.H_CEDE) == H.SUCCESS
    assert routed.router.counts[Hcall.H_CEDE] == BUFFERED + 10
    calls, missed = slow.watcher.take(100)
    assert (len(calls), missed) == (100, 10)
    assert slow.watcher.take(BUFFERED)[1] == 0, "a miss is told once"
    assert other.seen() == []
    trace.remove(slow.watcher)
    assert trace.missed == 10, "misses of watchers that went stay counted"
    assert slow.woken == 1


def test_a_watcher_is_woken_again_after_it_took_everything(routed: Routed, trace: TrapTrace) -> None:
    watching = watch(trace)
    for expected in (1, 2, 3):
        routed.hypercall(H_ADD, 1)
        assert watching.woken == expected
        assert len(watching.seen()) == 1


def test_watchers_and_patterns_are_bounded(trace: TrapTrace) -> None:
    for _ in range(MAX_WATCHERS):
        watch(trace)
    with pytest.raises(TooManyWatchersError, match="8 watchers"):
        watch(trace)
    for patterns in (["x"] * 33, ["x" * 65]):
        with pytest.raises(WatchError, match="at most 32 patterns"):
            watch(trace, calls=patterns)


def test_remote_calls_are_timed_by_what_came_of_them(routed: Routed, backend: ThreadBackend) -> None:
    assert H_HELD not in routed.router.counts
    for _ in range(3):
        routed.hypercall(H_ADD, 1)
    routed.hypercall(H_FAIL)
    routed.rtas(FIRST_FREE_TOKEN, 3, returns=2)
    found = {(timed.call, timed.result.name): sum(timed.latency.counts) for timed in routed.router.times.all()}
    assert found == {("H_ADD", "SUCCESS"): 3, ("H_FAIL", "ERROR"): 1, ("test,sum", "ERROR"): 1}
    [add] = routed.router.times.of("H_ADD", backend.address)
    assert 0 < add.latency.seconds < 60
    assert add.owner == backend.address
