# SPDX-License-Identifier: GPL-2.0-or-later
"""The router, from a guest's registers to a back end and back."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

import pytest

from cpu_service.engine.engine import MSR_ME, MSR_PR, MSR_SF, Engine
from cpu_service.engine.ram import GuestRam
from cpu_service.hypercalls.declarations import LocalHypercall
from cpu_service.hypercalls.hash_page_table import MIN_SHIFT
from cpu_service.link.backend_link import BackendLink
from cpu_service.link.connection import MessageTap
from cpu_service.routing.router import TrapRouter
from cpu_service.vcpus.scheduler import VcpuScheduler
from cpu_service.vcpus.timebase import Timebase
from splitvisor.papr.codes import H, RtasStatus
from splitvisor.papr.hcall import Hcall
from splitvisor.papr.rtas import FIRST_FREE_TOKEN
from splitvisor.rpc import trap_pb2 as pb
from tests.component.trap_backend import (
    H_ADD,
    H_INVOKE,
    H_LOG,
    H_LOG_HELD,
    MAX_SIZE,
    UNIT,
    OtherSession,
    ThreadBackend,
)
from tests.component.trap_client import DEADLINE_S, MASK, RAM_BYTES, Events, wait_until


class Routed:
    """A router over real links; hypercalls are made by setting registers."""

    def __init__(self, *backends: ThreadBackend, taps: Sequence[MessageTap] = ()) -> None:
        self.events = Events()
        ram = mmap.mmap(-1, RAM_BYTES)
        self.ram = GuestRam(ram)
        engine = self.engine = Engine(ram, mmap.mmap(-1, 1 << MIN_SHIFT))
        self.scheduler = VcpuScheduler(engine, Timebase(engine), 1)
        self.scheduler.reset(0x1000, {}, MSR_SF | MSR_ME)
        registry = self.registry = self.events.registry
        registry.add_local([LocalHypercall(Hcall.H_CEDE, lambda _vcpu: H.SUCCESS, "tests")])
        self.links = []
        for backend, tap in zip_longest(backends, taps):
            hello = pb.Hello(vm="vm", incarnation=1, vcpus=1, ram_bytes=RAM_BYTES)
            link = BackendLink(backend.address, backend.address, hello, self.ram, self.events, tap=tap)
            link.begin()
            link.wait_attached(DEADLINE_S)
            registry.add_offer(link)
            self.links.append(link)
        self.router = TrapRouter(registry, self.scheduler, self.ram, self.events, self.events.window)
        engine.on_hypercall = self.router.dispatch

    def hypercall(self, token: int, *arguments: int) -> int:
        gpr = self.scheduler.loaded.gpr
        gpr[3] = token
        for number, value in enumerate(arguments, 4):
            gpr[number] = value
        self.engine.on_hypercall()
        return gpr[3] - (1 << 64) if gpr[3] >> 63 else gpr[3]

    def rtas(self, token: int, *arguments: int, returns: int) -> tuple[int, list[int]]:
        words = [token, len(arguments), returns, *arguments, *([0xDEAD_BEEF] * (returns + 1))]
        self.ram.map[0x100 : 0x100 + 4 * len(words)] = b"".join(word.to_bytes(4, "big") for word in words)
        result = self.hypercall(Hcall.H_RTAS, 0x100)
        at = 0x100 + 4 * (3 + len(arguments))
        data = self.ram.map[at : at + 4 * (returns + 1)]
        return result, [int.from_bytes(data[start : start + 4], "big") for start in range(0, len(data), 4)]

    def close(self) -> None:
        for link in self.links:
            link.close("the test is over")


@pytest.fixture
def routed(backend: ThreadBackend, directory: Path) -> Iterator[Routed]:
    other = ThreadBackend(directory, "other", OtherSession)
    routed = Routed(backend, other)
    yield routed
    routed.close()
    other.close()


def test_guest_gets_outputs_in_its_registers(routed: Routed) -> None:
    assert routed.hypercall(H_ADD, 40) == H.SUCCESS
    assert routed.hypercall(H_ADD, 2, 77) == H.SUCCESS
    assert list(routed.scheduler.loaded.gpr[4:6]) == [42, 77], "registers without an output keep their values"


def test_guest_gets_h_busy_without_credit(routed: Routed, backend: ThreadBackend) -> None:
    results = [routed.hypercall(H_LOG_HELD, UNIT, MAX_SIZE, tag) for tag in range(5)]
    assert results == [H.SUCCESS] * 4 + [H.BUSY]
    backend.open_gate()
    wait_until(lambda: routed.hypercall(H_LOG_HELD, UNIT, MAX_SIZE, 5) == H.SUCCESS, "credit is back")


def test_call_that_may_not_be_posted_goes_the_synchronous_way(routed: Routed, backend: ThreadBackend) -> None:
    assert routed.hypercall(H_LOG, UNIT + 1, 1, 1) == H.SUCCESS
    assert backend.session().log == [1], "it is done when the guest has its answer"
    assert routed.hypercall(H_LOG, UNIT, 1 << 40, 2) == H.SUCCESS
    assert backend.session().log == [1, 2]


def test_back_end_invokes_another(routed: Routed) -> None:
    assert routed.hypercall(H_INVOKE, 0xF200, 9) == H.SUCCESS
    assert routed.scheduler.loaded.gpr[4] == 9
    assert routed.hypercall(H_INVOKE, 0xF204, 9) == H.FUNCTION, "nobody owns it"
    assert routed.hypercall(H_INVOKE, H_ADD, 9) == H.RESOURCE, "its own calls would wait for themselves"


def test_user_mode_and_unknown_tokens_are_refused(routed: Routed, backend: ThreadBackend) -> None:
    assert routed.hypercall(0xF300) == H.FUNCTION
    assert routed.hypercall(MASK) == H.FUNCTION
    routed.scheduler.loaded.msr.value |= MSR_PR
    assert routed.hypercall(H_ADD, 1) == H.PRIVILEGE
    assert backend.session().value == 0


def test_rtas_call_is_answered_in_its_parameter_block(routed: Routed) -> None:
    assert routed.rtas(FIRST_FREE_TOKEN, 3, 4, returns=2) == (H.SUCCESS, [0, 7, 0xDEAD_BEEF])
    wrong = RtasStatus.PARAMETER_ERROR & 0xFFFF_FFFF
    assert routed.rtas(FIRST_FREE_TOKEN, 3, returns=2) == (H.SUCCESS, [wrong, 0, 0xDEAD_BEEF])
    assert routed.rtas(0x1234, returns=1) == (H.PARAMETER, [wrong, 0xDEAD_BEEF])


@pytest.mark.parametrize("block", [RAM_BYTES - 8, RAM_BYTES, MASK >> 4, 1 << 40])
def test_rtas_parameter_block_outside_ram_is_refused(routed: Routed, block: int) -> None:
    assert routed.hypercall(Hcall.H_RTAS, block) == H.PARAMETER


def test_rtas_counts_without_bound_are_refused(routed: Routed) -> None:
    for nargs, nret in ((0xFFFF_FFFF, 0), (0, 0xFFFF_FFFF), (40, 25)):
        words = FIRST_FREE_TOKEN, nargs, nret
        routed.ram.map[0x100:0x10C] = b"".join(word.to_bytes(4, "big") for word in words)
        assert routed.hypercall(Hcall.H_RTAS, 0x100) == H.PARAMETER


FETCH, STORE = FIRST_FREE_TOKEN + 1, FIRST_FREE_TOKEN + 2


def test_mirrored_array_is_read_here_and_what_is_stored_is_read_next(routed: Routed, backend: ThreadBackend) -> None:
    assert routed.rtas(FETCH, 2, 0x2000, 4, returns=2) == (H.SUCCESS, [0, 4, 0xDEAD_BEEF])
    assert routed.ram.read(0x2000, 5) == b"rror\0"
    assert routed.rtas(STORE, 3, 0x21, returns=1) == (H.SUCCESS, [0, 0xDEAD_BEEF])
    assert routed.rtas(FETCH, 0, 0x2000, 8, returns=2) == (H.SUCCESS, [0, 8, 0xDEAD_BEEF])
    assert routed.ram.read(0x2000, 8) == b"mir!ored"
    assert backend.session().fetches == 0


@pytest.mark.parametrize(
    ("arguments", "status"), [((4, 0x2000, 5), -3), ((0xFFFF_FFFF, 0x2000, 1), -3), ((0, RAM_BYTES - 4, 8), -3)]
)
def test_read_that_a_mirror_cannot_answer_goes_to_its_owner(
    routed: Routed, backend: ThreadBackend, arguments: tuple[int, ...], status: int
) -> None:
    result, (word, _, untouched) = routed.rtas(FETCH, *arguments, returns=2)
    assert (result, word, untouched) == (H.SUCCESS, status & 0xFFFF_FFFF, 0xDEAD_BEEF)
    assert backend.session().fetches == 1
    assert not any(routed.ram.read(0x2000, 8))


def test_mirror_is_taken_anew_when_the_back_end_is_attached_again(routed: Routed, backend: ThreadBackend) -> None:
    backend.session().array[:] = b"replaced"
    backend.drop()
    wait_until(lambda: routed.links[0].reconnects == 1, "attached again")
    assert routed.rtas(FETCH, 0, 0x2000, 8, returns=2)[1][:2] == [0, 8]
    assert routed.ram.read(0x2000, 8) == b"replaced"


def test_write_behind_a_mirrors_end_changes_nothing(routed: Routed) -> None:
    [link, other] = routed.links
    assert not link.offer.mirror_write(pb.MirrorWrite(name="test,fetch", offset=7, data=b"xy"))
    assert link.offer.mirrors["test,fetch"] == b"mirrored"
    assert other.offer.mirror_write(pb.MirrorWrite(name="test,fetch", offset=0, data=b"xy")), (
        "without a mirror there is nothing to do"
    )
    assert not other.offer.mirrors
