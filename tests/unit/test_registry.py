# SPDX-License-Identifier: GPL-2.0-or-later
"""Every call has one owner, and a back end's offer is not believed."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator

import pytest

from cpu_service.engine.ram import GuestRam
from cpu_service.hypercalls.declarations import LocalHypercall, LocalRtas
from cpu_service.link.backend_link import BackendLink
from cpu_service.link.events import LinkStatus
from cpu_service.routing.registry import MAX_BUFFER_BYTES, MAX_OPERAND_BYTES, Registry, RegistryError
from cpu_service.routing.remote_call import RemoteCall
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from splitvisor.papr.rtas import FIRST_FREE_TOKEN, TOKENS
from splitvisor.rpc import trap_pb2 as pb
from tests.without_transports import WithoutTransports


class NoEvents(WithoutTransports):
    """A link that never connects tells nothing."""

    def interrupt(self, source: int) -> None:
        raise AssertionError(source)

    def action(self, action: pb.MachineAction) -> None:
        raise AssertionError(action)

    def memory_written(self, address: int, length: int) -> None:
        raise AssertionError(address, length)

    def connection_changed(self, link: LinkStatus) -> None:
        raise AssertionError(link)

    def offer_changed(self, link: LinkStatus, *, attached_anew: bool) -> None:
        raise AssertionError(link)


@pytest.fixture
def link() -> Iterator[Callable[[str], BackendLink]]:
    links: list[BackendLink] = []

    def make(name: str) -> BackendLink:
        links.append(BackendLink(name, "unix:/nowhere", pb.Hello(), GuestRam(mmap.mmap(-1, 4096)), NoEvents()))
        return links[-1]

    yield make
    for made in links:
        made.close("the test is over")


def hypercall(token: int, name: str = "H_TEST", **more: object) -> pb.Route:
    route = pb.Route(kind=pb.CALL_KIND_HYPERCALL, token=token, name=name, arguments=3)
    route.MergeFrom(pb.Route(**more))  # type: ignore[arg-type]  # fields by name, for brevity
    return route


def posted_buffers(**buffers: int) -> pb.Route:
    return pb.Route(
        kind=pb.CALL_KIND_HYPERCALL, token=0xF100, name="H_TEST", arguments=2, posted=pb.PostedPolicy(size_argument=1),
        buffers=pb.DescribedBuffers(**buffers),
    )  # fmt: skip


def rtas(name: str) -> pb.Route:
    return pb.Route(kind=pb.CALL_KIND_RTAS, name=name)


def offer(registry: Registry, link: BackendLink, routes: list[pb.Route]) -> None:
    link.offer.routes = routes
    registry.add_offer(link)


def local_hypercall(token: int) -> LocalHypercall:
    return LocalHypercall(token, lambda _vcpu: H.SUCCESS, "tests")


def local_rtas(name: str) -> LocalRtas:
    return LocalRtas(name, lambda _vcpu, _arguments, _returns: (0,), "tests", 0, 1)


def test_two_back_ends_that_claim_a_hypercall_are_both_named(link: Callable[[str], BackendLink]) -> None:
    registry = Registry()
    offer(registry, link("vio"), [hypercall(0x58, "H_PUT_TERM_CHAR")])
    with pytest.raises(RegistryError, match=r"H_PUT_TERM_CHAR \(0x58\) is claimed by vio and by other"):
        offer(registry, link("other"), [hypercall(0x58, "H_PUT_TERM_CHAR")])


def test_hypercall_of_cpu_service_cannot_be_claimed(link: Callable[[str], BackendLink]) -> None:
    registry = Registry()
    registry.add_local([local_hypercall(Hcall.H_ENTER)])
    with pytest.raises(RegistryError, match=r"claimed by local and by greedy"):
        offer(registry, link("greedy"), [hypercall(Hcall.H_ENTER, "H_ENTER")])


def test_rtas_itself_cannot_be_claimed(link: Callable[[str], BackendLink]) -> None:
    with pytest.raises(RegistryError, match="the RTAS dispatcher and by greedy"):
        offer(Registry(), link("greedy"), [hypercall(Hcall.H_RTAS, "H_RTAS")])


def test_two_owners_of_an_rtas_call_are_both_named(link: Callable[[str], BackendLink]) -> None:
    registry = Registry()
    registry.add_local([local_rtas("start-cpu")])
    offer(registry, link("hcall"), [rtas("get-time-of-day")])
    with pytest.raises(RegistryError, match="'get-time-of-day' is claimed by hcall and by clock"):
        offer(registry, link("clock"), [rtas("get-time-of-day")])
    with pytest.raises(RegistryError, match="'start-cpu' is claimed by local and by clock"):
        offer(registry, link("clock"), [rtas("start-cpu")])


def test_one_offer_cannot_claim_a_call_twice(link: Callable[[str], BackendLink]) -> None:
    with pytest.raises(RegistryError, match="by twice and by twice"):
        offer(Registry(), link("twice"), [hypercall(0xF100), hypercall(0xF100)])


def test_rtas_tokens_are_the_tables_and_then_from_0x2080(link: Callable[[str], BackendLink]) -> None:
    registry = Registry()
    registry.add_local([local_rtas("stop-self"), local_rtas("a,local")])
    offer(registry, link("hcall"), [rtas("z,new"), rtas("power-off"), rtas("b,new")])
    assert FIRST_FREE_TOKEN == 0x2080
    assert {call.name: call.token for call in registry.rtas_calls()} == {
        "stop-self": TOKENS["stop-self"],
        "power-off": TOKENS["power-off"],
        "a,local": 0x2080,
        "z,new": 0x2081,
        "b,new": 0x2082,
    }
    tokens = [call.token for call in registry.rtas_calls()]
    assert tokens == sorted(tokens)


def test_known_rtas_tokens_are_those_that_guests_traces_show() -> None:
    assert (TOKENS["display-character"], TOKENS["power-off"], TOKENS["start-cpu"], TOKENS["nvram-fetch"]) == (
        0x2000,
        0x2003,
        0x2006,
        0x2012,
    )
    assert max(TOKENS.values()) < FIRST_FREE_TOKEN


def test_routes_keep_their_place_in_the_offer(link: Callable[[str], BackendLink]) -> None:
    registry = Registry()
    posted = pb.PostedPolicy(credit_bytes=8, key_argument=0, key_values=[5, 6], size_argument=1, max_size=8)
    offer(registry, link("vio"), [rtas("quiesce"), hypercall(0xF104), hypercall(0xF100, posted=posted)])
    calls = {token: call for token, call in registry.remote.items() if isinstance(call, RemoteCall)}
    assert {token: call.index for token, call in calls.items()} == {0xF104: 1, 0xF100: 2}
    assert calls[0xF100].posted_keys == {5, 6}
    assert registry.hypercalls() == [0xF100, 0xF104]


def operand(size: int, word: tuple[int, int] | None = None) -> pb.OperandSpec:
    spec = pb.OperandSpec(size=size)
    if word is None:
        spec.argument = 0
    else:
        spec.word.operand, spec.word.index = word
    return spec


@pytest.mark.parametrize(
    ("route", "complaint"),
    [
        (hypercall(0xF100, ""), "without a name"),
        (hypercall(0xF100, "H" * 65), "without a name of 1 to 64"),
        (pb.Route(token=0xF100, name="H_TEST"), "neither hypercall nor RTAS"),
        (hypercall(0), "token 0x0 is not between"),
        (hypercall(0x1_0000), "token 0x10000 is not between"),
        (hypercall(0xF100, arguments=10), "10 arguments"),
        (hypercall(0xF100, operands=[operand(MAX_OPERAND_BYTES), operand(1)]), "operands of more than"),
        (hypercall(0xF100, operands=[operand(4, (0, 0))]), "operand 0 hangs on one that does not come before"),
        (hypercall(0xF100, buffers=pb.DescribedBuffers(count=1)), "it has buffers and is not posted"),
        (posted_buffers(count=0, min_bytes=1, max_bytes=1), "not described by arguments that it has"),
        (posted_buffers(first=1, count=2, min_bytes=1, max_bytes=1), "not described by arguments that it has"),
        (posted_buffers(first=0xFFFF_FFFF, count=1, min_bytes=1, max_bytes=1), "not described by arguments that it has"),
        (posted_buffers(count=1, min_bytes=1, max_bytes=MAX_BUFFER_BYTES + 1), "buffers of more than 65536 bytes"),
        (posted_buffers(count=1, max_bytes=100), "its calls may take no credit"),
        (hypercall(0xF100, operands=[operand(4), operand(4, (2, 0))]), "operand 1 hangs on"),
        (hypercall(0xF100, posted=pb.PostedPolicy(key_argument=3, size_argument=0)), "a posted call is"),
        (hypercall(0xF100, posted=pb.PostedPolicy(key_argument=0, size_argument=9)), "a posted call is"),
        (pb.Route(kind=pb.CALL_KIND_RTAS, name="a", posted=pb.PostedPolicy()), "a posted call is"),
    ],
)
def test_route_that_makes_no_sense_is_refused(link: Callable[[str], BackendLink], route: pb.Route, complaint: str) -> None:
    with pytest.raises(RegistryError, match=complaint) as raised:
        offer(Registry(), link("strange"), [route])
    assert "strange" in str(raised.value)
