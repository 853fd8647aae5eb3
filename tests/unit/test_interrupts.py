# SPDX-License-Identifier: GPL-2.0-or-later
"""The interrupt controller loses no edge, invents none, and presents the most favoured first."""

from __future__ import annotations

from threading import Thread

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cpu_service.hypercalls.xics import FIRST_SOURCE, IPI, SOURCES, Xics
from splitvisor.papr.codes import H, RtasStatus
from splitvisor.papr.hcall import Hcall
from tests.amounts import examples
from tests.fake_machine import FakeVcpu, hypercall, rtas

OK = (RtasStatus.SUCCESS,)
BAD = (RtasStatus.PARAMETER_ERROR,)
A, B = 0x1100, 0x1101
OPEN = 0xFF


class Machine:
    def __init__(self, servers: int = 2) -> None:
        self.lines = [False] * servers
        self.changes: list[tuple[int, bool]] = []
        self.xics = Xics(servers, self.drive, lambda: 0x1234_5678_9ABC)
        self.vcpus = [FakeVcpu(index) for index in range(servers)]
        self.changes.clear()

    def drive(self, server: int, level: bool) -> None:
        self.lines[server] = level
        self.changes.append((server, level))

    def call(self, token: int, *arguments: int, server: int = 0) -> int:
        return hypercall(self.xics.calls(), token, self.vcpus[server], *arguments)

    def rtas(self, name: str, *arguments: int) -> tuple[int, ...]:
        return rtas(self.xics.calls(), name, self.vcpus[0], *arguments)

    def accept(self, server: int = 0) -> tuple[int, int]:
        """H_XIRR as (CPPR before, source)."""
        assert self.call(Hcall.H_XIRR, server=server) == H.SUCCESS
        xirr = self.vcpus[server].gpr[4]
        return xirr >> 24, xirr & 0xFFFFFF

    def poll(self, server: int = 0) -> tuple[int, int, int]:
        """H_IPOLL as (CPPR, source, MFRR)."""
        assert self.call(Hcall.H_IPOLL, server) == H.SUCCESS
        xirr, mfrr = self.vcpus[0].gpr[4:6]
        return xirr >> 24, xirr & 0xFFFFFF, mfrr


def ready(*priorities: tuple[int, int]) -> Machine:
    """A machine with an open vCPU 0 and sources at given priorities."""
    machine = Machine()
    machine.call(Hcall.H_CPPR, OPEN)
    for source, priority in priorities:
        assert machine.rtas("ibm,set-xive", source, 0, priority) == OK
    return machine


def test_an_edge_is_presented_accepted_and_ended() -> None:
    machine = ready((A, 5))
    assert machine.xics.pulse(A)
    assert machine.lines[0]
    assert machine.accept() == (OPEN, A)
    assert not machine.lines[0]
    assert machine.poll() == (5, 0, 0xFF)
    assert machine.call(Hcall.H_EOI, OPEN << 24 | A) == H.SUCCESS
    assert machine.poll() == (OPEN, 0, 0xFF)
    assert machine.accept() == (OPEN, 0)


def test_accepting_nothing_changes_nothing() -> None:
    machine = ready()
    machine.call(Hcall.H_CPPR, 7)
    assert machine.accept() == (7, 0)
    assert machine.poll() == (7, 0, 0xFF)


def test_an_edge_while_the_last_one_is_handled_comes_after_its_end() -> None:
    machine = ready((A, 5))
    machine.xics.pulse(A)
    machine.accept()
    machine.xics.pulse(A)
    assert not machine.lines[0]
    machine.call(Hcall.H_EOI, OPEN << 24 | A)
    assert machine.lines[0]
    assert machine.accept() == (OPEN, A)


def test_a_more_favoured_source_displaces_the_presented_one_which_comes_next() -> None:
    machine = ready((A, 5), (B, 4))
    machine.xics.pulse(A)
    machine.xics.pulse(B)
    assert machine.changes == [(0, True)]
    assert machine.accept() == (OPEN, B)
    assert not machine.lines[0]
    machine.call(Hcall.H_EOI, OPEN << 24 | B)
    assert machine.accept() == (OPEN, A)


def test_a_stricter_cppr_takes_the_presented_source_back() -> None:
    machine = ready((A, 5))
    machine.xics.pulse(A)
    machine.call(Hcall.H_CPPR, 5)
    assert not machine.lines[0]
    assert machine.accept() == (5, 0)
    machine.call(Hcall.H_CPPR, 6)
    assert machine.accept() == (6, A)


@pytest.mark.parametrize("mask", ["ibm,int-off", "ibm,set-xive"])
def test_an_edge_while_masked_is_delivered_when_unmasked(mask: str) -> None:
    machine = ready((A, 5))
    if mask == "ibm,int-off":
        machine.rtas(mask, A)
        machine.rtas(mask, A)
    else:
        machine.rtas(mask, A, 0, 0xFF)
    assert machine.xics.pulse(A)
    assert not machine.lines[0]
    if mask == "ibm,int-off":
        assert machine.rtas("ibm,get-xive", A) == (0, 0, 0xFF)
        assert machine.rtas("ibm,int-on", A) == OK
    else:
        machine.rtas(mask, A, 0, 5)
    assert machine.rtas("ibm,get-xive", A) == (0, 0, 5)
    assert machine.accept() == (OPEN, A)
    machine.call(Hcall.H_EOI, OPEN << 24 | A)
    assert not machine.lines[0]


def test_an_edge_that_is_not_accepted_follows_its_source_to_another_vcpu() -> None:
    machine = ready((A, 5))
    machine.call(Hcall.H_CPPR, OPEN, server=1)
    machine.xics.pulse(A)
    machine.rtas("ibm,set-xive", A, 1, 5)
    assert machine.lines == [False, True]
    assert machine.accept(0) == (OPEN, 0)
    assert machine.accept(1) == (OPEN, A)


def test_an_ipi_interrupts_its_target_until_mfrr_is_withdrawn() -> None:
    machine = Machine()
    machine.call(Hcall.H_CPPR, OPEN, server=1)
    assert machine.call(Hcall.H_IPI, 1, 4) == H.SUCCESS
    assert machine.lines == [False, True]
    assert machine.poll(1) == (OPEN, IPI, 4)
    assert machine.accept(1) == (OPEN, IPI)
    machine.call(Hcall.H_EOI, OPEN << 24 | IPI, server=1)
    assert machine.lines[1]
    machine.accept(1)
    machine.call(Hcall.H_IPI, 1, 0xFF, server=1)
    machine.call(Hcall.H_EOI, OPEN << 24 | IPI, server=1)
    assert not machine.lines[1]


def test_xirr_x_adds_the_time_base() -> None:
    machine = ready((A, 5))
    machine.xics.pulse(A)
    assert machine.call(Hcall.H_XIRR_X) == H.SUCCESS
    assert list(machine.vcpus[0].gpr[4:6]) == [OPEN << 24 | A, 0x1234_5678_9ABC]


@pytest.mark.parametrize("server", [2, 1 << 32, (1 << 64) - 1])
def test_an_unknown_vcpu_is_a_parameter_error(server: int) -> None:
    machine = ready()
    assert machine.call(Hcall.H_IPI, server, 0) == H.PARAMETER
    assert machine.call(Hcall.H_IPOLL, server) == H.PARAMETER
    assert machine.rtas("ibm,set-xive", A, server, 5) == BAD


@pytest.mark.parametrize("source", [0, IPI, FIRST_SOURCE - 1, FIRST_SOURCE + SOURCES, 0xFFFF_FFFF])
def test_an_unknown_source_is_a_parameter_error(source: int) -> None:
    machine = ready()
    assert not machine.xics.pulse(source)
    assert machine.rtas("ibm,set-xive", source, 0, 5) == BAD
    for name in ("ibm,get-xive", "ibm,int-on", "ibm,int-off"):
        assert machine.rtas(name, source) == BAD


def test_a_priority_has_eight_bits() -> None:
    machine = ready()
    assert machine.rtas("ibm,set-xive", A, 0, 0x100) == BAD
    assert machine.rtas("ibm,get-xive", A) == (0, 0, 0xFF)


def test_reset_forgets_everything() -> None:
    machine = ready((A, 5), (B, 6))
    machine.xics.pulse(A)
    machine.xics.pulse(B)
    machine.xics.reset()
    assert not machine.lines[0]
    machine.call(Hcall.H_CPPR, OPEN)
    assert machine.accept() == (OPEN, 0)
    assert machine.rtas("ibm,get-xive", A) == (0, 0, 0xFF)


def test_pulses_from_many_threads_are_all_delivered() -> None:
    sources = range(FIRST_SOURCE, FIRST_SOURCE + 200)
    machine = ready(*((source, 5) for source in sources))

    def pulse(part: int) -> None:
        for source in sources[part::4]:
            machine.xics.pulse(source)

    threads = [Thread(target=pulse, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    seen: list[int] = []
    while len(seen) < len(sources):
        _, source = machine.accept()
        if source:
            seen.append(source)
            machine.call(Hcall.H_EOI, OPEN << 24 | source)
        elif not any(thread.is_alive() for thread in threads) and not machine.lines[0]:
            break
    for thread in threads:
        thread.join(timeout=10)
    assert sorted(seen) == list(sources)


SOURCE = st.sampled_from(range(FIRST_SOURCE, FIRST_SOURCE + 4))
SERVER = st.integers(0, 1)
PRIORITY = st.sampled_from([0, 1, 2, 3, 0xFF])


def test_an_edge_of_what_is_presented_already_is_the_same_edge() -> None:
    machine = Machine()
    machine.call(Hcall.H_CPPR, OPEN, server=0)
    machine.rtas("ibm,set-xive", FIRST_SOURCE, 0, 5)
    machine.xics.pulse(FIRST_SOURCE)
    machine.xics.pulse(FIRST_SOURCE)
    assert machine.accept(0)[1] == FIRST_SOURCE
    machine.call(Hcall.H_EOI, OPEN << 24 | FIRST_SOURCE, server=0)
    assert not machine.lines[0]
    machine.xics.pulse(FIRST_SOURCE)
    assert machine.accept(0)[1] == FIRST_SOURCE


class AnyGuest(RuleBasedStateMachine):
    """Any sequence of calls and edges, against what must hold in every state: no model of how the controller gets there."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine()
        self.cppr = [0, 0]
        self.mfrr = [0xFF, 0xFF]
        self.edges: set[int] = set()
        self.route = dict.fromkeys(range(FIRST_SOURCE, FIRST_SOURCE + 4), (0, 0xFF))
        self.saved = dict.fromkeys(self.route, 0xFF)

    @rule(source=SOURCE)
    def pulse(self, source: int) -> None:
        self.edges.add(source)
        assert self.machine.xics.pulse(source)

    @rule(source=SOURCE, server=SERVER, priority=PRIORITY)
    def set_xive(self, source: int, server: int, priority: int) -> None:
        self.route[source] = (server, priority)
        self.saved[source] = priority
        assert self.machine.rtas("ibm,set-xive", source, server, priority) == OK

    @rule(source=SOURCE)
    def int_off(self, source: int) -> None:
        self.route[source] = (self.route[source][0], 0xFF)
        assert self.machine.rtas("ibm,int-off", source) == OK

    @rule(source=SOURCE)
    def int_on(self, source: int) -> None:
        self.route[source] = (self.route[source][0], self.saved[source])
        assert self.machine.rtas("ibm,int-on", source) == OK

    @rule(server=SERVER, priority=PRIORITY)
    def set_cppr(self, server: int, priority: int) -> None:
        self.cppr[server] = priority
        self.machine.call(Hcall.H_CPPR, priority, server=server)

    @rule(server=SERVER, priority=PRIORITY)
    def ipi(self, server: int, priority: int) -> None:
        self.mfrr[server] = priority
        self.machine.call(Hcall.H_IPI, server, priority)

    @rule(server=SERVER)
    def accept(self, server: int) -> None:
        cppr, source = self.machine.accept(server)
        assert cppr == self.cppr[server]
        after = self.machine.poll(server)[0]
        if source in self.route:
            assert source in self.edges
            self.edges.remove(source)
            assert after == self.route[source][1]
        assert after < cppr if source else after == cppr
        self.cppr[server] = after

    @rule(server=SERVER, cppr=PRIORITY)
    def eoi(self, server: int, cppr: int) -> None:
        self.cppr[server] = cppr
        self.machine.call(Hcall.H_EOI, cppr << 24 | FIRST_SOURCE, server=server)

    @invariant()
    def presents_the_most_favoured(self) -> None:
        for server in (0, 1):
            cppr, shown, mfrr = self.machine.poll(server)
            assert (cppr, mfrr) == (self.cppr[server], self.mfrr[server])
            assert self.machine.lines[server] == bool(shown)
            waiting = [priority for source, (at, priority) in self.route.items() if source in self.edges and at == server]
            best = min([*waiting, mfrr])
            if best < cppr:
                assert shown
            if shown in self.route:
                assert shown in self.edges
                at, priority = self.route[shown]
                assert at == server
                assert priority <= best
                assert priority < cppr

    @invariant()
    def reports_the_configuration(self) -> None:
        for source, (server, priority) in self.route.items():
            assert self.machine.rtas("ibm,get-xive", source) == (0, server, priority)

    def teardown(self) -> None:
        """Every edge that was not accepted arrives once everything is open."""
        for server in (0, 1):
            self.machine.call(Hcall.H_IPI, server, 0xFF)
            self.machine.call(Hcall.H_CPPR, OPEN, server=server)
        for source in self.route:
            self.machine.rtas("ibm,set-xive", source, 0, 5)
        seen = []
        for server in (0, 1):
            while self.machine.lines[server]:
                _, source = self.machine.accept(server)
                seen.append(source)
                self.machine.call(Hcall.H_EOI, OPEN << 24 | source, server=server)
        assert sorted(source for source in seen if source != IPI) == sorted(self.edges)


AnyGuest.TestCase.settings = settings(max_examples=examples(60), stateful_step_count=40, database=None)
TestAnyGuest = AnyGuest.TestCase
