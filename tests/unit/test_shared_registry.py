# SPDX-License-Identifier: GPL-2.0-or-later
"""Back ends share a call by its key: each key has the owner that a plain table of keys would give it, at every moment."""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpu_service.engine.ram import GuestRam
from cpu_service.hypercalls.declarations import LocalHypercall
from cpu_service.link.backend_link import BackendLink
from cpu_service.routing.posting import Posted
from cpu_service.routing.registry import MAX_KEY_RANGES, Registry, RegistryError
from cpu_service.routing.remote_call import SharedCall
from splitvisor.papr.codes import H, RtasStatus
from splitvisor.rpc import trap_pb2 as pb
from tests.unit.test_registry import NoEvents

TOKEN = 0xF100
KEYS = 24
RAM = GuestRam(mmap.mmap(-1, 4096))

Shares = Mapping[str, Sequence[tuple[int, int]]]
"""Ranges by back end: first and last."""


def other(*keys: tuple[int, int]) -> pb.Route:
    return shared(keys=keys, token=0xF104, name="H_OTHER")


def shared(*, keys: Sequence[tuple[int, int]] = (), kind: pb.CallKind = pb.CALL_KIND_HYPERCALL, **more: object) -> pb.Route:
    route = pb.Route(kind=kind, token=TOKEN, name="H_TEST", arguments=2, selector=pb.Selector(argument=0))
    route.keys.extend(pb.KeyRange(first=first, last=last) for first, last in keys)
    route.MergeFrom(pb.Route(**more))  # type: ignore[arg-type]  # fields by name, for brevity
    return route


class Machine:
    """A registry, and links that never connect."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.links: dict[str, BackendLink] = {}

    def offer(self, name: str, *routes: pb.Route) -> None:
        link = self.links[name] = BackendLink(name, "unix:/nowhere", pb.Hello(), RAM, NoEvents())
        link.offer.routes = routes
        self.registry.add_offer(link)

    def change(self, name: str, *routes: pb.Route) -> None:
        """As a link does it: a change that is refused leaves its routes as they were."""
        link = self.links[name]
        before, link.offer.routes = link.offer.routes, routes
        try:
            self.registry.take_keys(link)
        except RegistryError:
            link.offer.routes = before
            raise

    def owner(self, *arguments: int, token: int = TOKEN) -> str | None:
        found = self.registry.hypercall_owner(token, RAM, arguments)
        return None if found is None else found.owner

    def owners(self) -> list[str | None]:
        return [self.owner(key, 0) for key in range(KEYS)]


def holders(shares: Shares) -> list[set[str]]:
    """The oracle: by key, everybody who claims it, looked at one by one."""
    return [{name for name, keys in shares.items() if any(first <= key <= last for first, last in keys)} for key in range(KEYS)]


RANGE = st.tuples(st.integers(0, KEYS - 1), st.integers(0, KEYS - 1)).map(lambda pair: (min(pair), max(pair)))
FEW = st.lists(RANGE.map(lambda pair: (pair[0], min(pair[1], pair[0] + 3))), max_size=3)


@given(st.lists(st.tuples(st.sampled_from("abc"), FEW), max_size=8))
def test_keys_have_the_owner_that_was_the_last_to_claim_them_without_conflict(
    changes: list[tuple[str, list[tuple[int, int]]]],
) -> None:
    machine = Machine()
    shares: dict[str, Sequence[tuple[int, int]]] = {}
    for name in "abc":
        machine.offer(name, shared())
        shares[name] = ()
    for name, keys in changes:
        wanted = {**shares, name: keys}
        if any(len(found) > 1 for found in holders(wanted)):
            with pytest.raises(RegistryError, match=r"H_TEST: key 0x[0-9a-f]+ is claimed by [abc] and by [abc]"):
                machine.change(name, shared(keys=keys))
        else:
            machine.change(name, shared(keys=keys))
            shares = wanted
        assert machine.owners() == [next(iter(found), None) for found in holders(shares)]


def test_a_change_of_several_calls_is_made_or_refused_as_a_whole() -> None:
    machine = Machine()
    machine.offer("a", shared(keys=[(1, 1)]), other((1, 1)))
    machine.offer("b", shared(keys=[(2, 2)]), other((2, 2)))
    with pytest.raises(RegistryError, match="H_OTHER: key 0x2 is claimed by a and by b"):
        machine.change("a", shared(keys=[(3, 3)]), other((2, 2)))
    assert machine.owners()[:4] == [None, "a", "b", None]
    machine.change("a", shared(keys=[(3, 3)]), other((3, 3)))
    assert machine.owners()[:4] == [None, None, "b", "a"]
    assert machine.owner(3, 0, token=0xF104) == "a"


def test_keys_that_may_be_posted_change_with_the_others() -> None:
    def posted(key: int) -> pb.Route:
        policy = pb.PostedPolicy(credit_bytes=64, key_argument=0, key_values=[key], size_argument=1, max_size=8)
        return shared(keys=[(1, 2)], posted=policy)

    machine = Machine()
    machine.offer("a", posted(1))
    call = machine.registry.hypercall_owner(TOKEN, RAM, (2, 4))
    assert call is not None
    posting = call.posting
    assert posting is not None

    def sizes(key: int, size: int = 4) -> Posted | None:
        return posting.posted((key, size), call.posted_keys, RAM, lambda _link, _unit: None)

    assert [sizes(1), sizes(2)] == [Posted(4, None), None]
    machine.change("a", posted(2))
    assert [sizes(1), sizes(2)] == [None, Posted(4, None)]
    assert sizes(2, 9) is None, "too large"


def test_a_back_end_that_is_not_registered_yet_changes_nothing() -> None:
    machine = Machine()
    machine.offer("a", shared(keys=[(1, 1)]))
    early = BackendLink("early", "unix:/nowhere", pb.Hello(), RAM, NoEvents())
    early.offer.routes = [shared(keys=[(1, 1)])]
    machine.registry.take_keys(early)
    assert machine.owner(1, 0) == "a"


WHOLE = pb.Route(kind=pb.CALL_KIND_HYPERCALL, token=TOKEN, name="H_TEST", arguments=2)


@pytest.mark.parametrize(
    ("first", "second", "complaint"),
    [
        (shared(keys=[(1, 5)]), shared(keys=[(5, 9)]), r"H_TEST: key 0x5 is claimed by a and by b"),
        (shared(keys=[(1, 5), (7, 7)]), WHOLE, r"H_TEST \(0xf100\) is claimed by a for key 0x1 to 0x5, 0x7 and by b"),
        (WHOLE, shared(keys=[(1, 5)]), r"H_TEST \(0xf100\) is claimed by a and by b for key 0x1 to 0x5"),
        (shared(), WHOLE, "claimed by a for no key yet and by b"),
        (shared(), shared(selector=pb.Selector(argument=1)), "a and b do not select by the same key"),
        (
            shared(),
            shared(selector=pb.Selector(argument=0, no_owner_result=H.NOT_FOUND)),
            "a and b do not select by the same key",
        ),
        (shared(), shared(arguments=3), "its arguments is 2 to a and 3 to b; they must agree"),
        (shared(), shared(name="H_ELSE"), "its name is H_TEST to a and H_ELSE to b; they must agree"),
        (
            shared(selector=pb.Selector(word=pb.OperandWord()), operands=[pb.OperandSpec(argument=0, size=8)]),
            shared(selector=pb.Selector(word=pb.OperandWord()), operands=[pb.OperandSpec(argument=1, size=8)]),
            "a and b have different operands where the key is",
        ),
    ],
)
def test_owners_that_do_not_agree_are_both_named(first: pb.Route, second: pb.Route, complaint: str) -> None:
    machine = Machine()
    machine.offer("a", first)
    with pytest.raises(RegistryError, match=complaint):
        machine.offer("b", second)


def test_operands_behind_that_of_the_key_may_differ() -> None:
    machine = Machine()
    by_word = pb.Selector(word=pb.OperandWord(operand=0, index=1))
    operand = pb.OperandSpec(argument=0, size=8)
    machine.offer("a", shared(keys=[(1, 1)], selector=by_word, operands=[operand]))
    machine.offer("b", shared(keys=[(2, 2)], selector=by_word, operands=[operand, pb.OperandSpec(argument=1, size=64)]))
    RAM.write(0x100, bytes((0, 0, 0, 0, 0, 0, 0, 2)))
    assert machine.owner(0x100, 0) == "b"


def test_what_cpu_service_has_cannot_be_shared() -> None:
    machine = Machine()
    machine.registry.add_local([LocalHypercall(TOKEN, lambda _vcpu: H.SUCCESS, "tests")])
    with pytest.raises(RegistryError, match="claimed by local and by a"):
        machine.offer("a", shared(keys=[(1, 1)]))


def test_a_back_end_has_one_share_of_a_call() -> None:
    with pytest.raises(RegistryError, match="claimed by a for key 0x1 and by a for key 0x2"):
        Machine().offer("a", shared(keys=[(1, 1)]), shared(keys=[(2, 2)]))


@pytest.mark.parametrize(
    ("route", "complaint"),
    [
        (shared(keys=[(5, 4)]), "0x5 to 0x4 are no keys"),
        (shared(keys=[(0, 1 << 32)]), "0x0 to 0x100000000 are no keys; they go from 0 to 0xffffffff"),
        (shared(keys=[(0, 0)] * (MAX_KEY_RANGES + 1)), "more than 256 ranges of keys"),
        (shared(selector=pb.Selector(argument=2)), "names an argument or operand that the route does not have"),
        (shared(selector=pb.Selector(argument_pair=1)), "names an argument or operand that the route does not have"),
        (shared(selector=pb.Selector(word=pb.OperandWord(operand=0))), "names an argument or operand"),
        (
            shared(selector=pb.Selector(word=pb.OperandWord(index=1)), operands=[pb.OperandSpec(argument=0, size=7)]),
            "names an argument or operand",
        ),
        (shared(selector=pb.Selector(argument=16), kind=pb.CALL_KIND_RTAS), "names an argument or operand"),
        (pb.Route(kind=pb.CALL_KIND_HYPERCALL, token=TOKEN, name="H", selector=pb.Selector()), "does not say where"),
        (pb.Route(kind=pb.CALL_KIND_HYPERCALL, token=TOKEN, name="H", keys=[pb.KeyRange()]), "it has keys, but no selector"),
    ],
)  # fmt: skip
def test_a_selector_or_keys_that_make_no_sense_are_refused(route: pb.Route, complaint: str) -> None:
    with pytest.raises(RegistryError, match=complaint) as raised:
        Machine().offer("strange", route)
    assert "strange" in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "stated", "result"),
    [
        (pb.CALL_KIND_HYPERCALL, 0, H.PARAMETER),
        (pb.CALL_KIND_HYPERCALL, H.NOT_FOUND, H.NOT_FOUND),
        (pb.CALL_KIND_RTAS, 0, RtasStatus.PARAMETER_ERROR),
        (pb.CALL_KIND_RTAS, -9002, -9002),
    ],
)
def test_a_key_of_nobody_gets_what_its_owners_say(kind: pb.CallKind, stated: int, result: int) -> None:
    machine = Machine()
    machine.offer("a", shared(kind=kind, selector=pb.Selector(argument=0, no_owner_result=stated)))
    rtas = (each.owner for each in machine.registry.rtas.values())
    [call] = [each for each in (*machine.registry.remote.values(), *rtas) if isinstance(each, SharedCall)]
    assert call.select(RAM, (7, 0)) == ()
    assert call.no_owner == result
