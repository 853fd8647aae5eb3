# SPDX-License-Identifier: GPL-2.0-or-later
"""A back end's offer changes as a whole or not at all, and its calls never."""

from __future__ import annotations

import pytest

from cpu_service.link.errors import BackendUnavailableError
from cpu_service.link.offer import MIRROR_BYTES, BackendOffer
from splitvisor.rpc import trap_pb2 as pb


class Machine:
    """Refuses keys when it shall, and notes what it was shown."""

    def __init__(self) -> None:
        self.refuses = False
        self.shown: list[list[int]] = []
        self.offer = BackendOffer([pb.DeviceSpec(kind="vty")], self._changed)

    def _changed(self, attached_anew: bool) -> None:
        self.shown.append([each.first for route in self.offer.routes for each in route.keys])
        if self.refuses:
            raise BackendUnavailableError("another's key")


def offer(*keys: int, arguments: int = 1, mirror: bytes = b"array") -> pb.Offer:
    shared = pb.Route(name="H_SHARED", token=4, arguments=arguments, selector=pb.Selector(argument=0))
    shared.keys.extend(pb.KeyRange(first=key, last=key) for key in keys)
    posted = pb.Route(name="H_POSTED", token=8, posted=pb.PostedPolicy(credit_bytes=64, key_values=keys))
    nodes = [pb.TreeNode(path="/vdevice")]
    return pb.Offer(
        backend="b", routes=[shared, posted], nodes=nodes, ram_mapped=True, mirrors=[pb.Mirror(name="m", contents=mirror)]
    )


@pytest.fixture
def machine() -> Machine:
    machine = Machine()
    machine.offer.take(offer(1))
    return machine


def test_an_offer_is_taken(machine: Machine) -> None:
    taken = machine.offer
    assert (taken.backend, taken.ram_mapped, taken.mirrors) == ("b", True, {"m": bytearray(b"array")})
    assert (list(taken.credit_bytes), [node.path for node in taken.nodes]) == ([0, 64], ["/vdevice"])
    assert machine.shown == [[1]]


def test_keys_may_differ_at_the_next_attach_and_calls_may_not(machine: Machine) -> None:
    machine.offer.take(offer(1, 2))
    with pytest.raises(BackendUnavailableError, match="other routes"):
        machine.offer.take(offer(1, 2, arguments=2))
    assert machine.shown == [[1], [1, 2]]


@pytest.mark.parametrize("refused", [offer(2, mirror=b"other"), offer(2, mirror=bytes(MIRROR_BYTES + 1))])
def test_a_refused_offer_changes_nothing(machine: Machine, refused: pb.Offer) -> None:
    machine.refuses = len(refused.mirrors[0].contents) <= MIRROR_BYTES
    with pytest.raises(BackendUnavailableError):
        machine.offer.take(refused)
    assert [each.first for each in machine.offer.routes[0].keys] == [1]
    assert machine.offer.mirrors == {"m": bytearray(b"array")}


def test_an_inventory_replaces_nodes_devices_and_keys(machine: Machine) -> None:
    first = machine.offer.routes
    keys = [pb.RouteKeys(route=0, keys=[pb.KeyRange(first=7, last=9)]), pb.RouteKeys(route=1, posted_keys=[7])]
    machine.offer.take_inventory(pb.Inventory(devices=[pb.DeviceSpec(kind="nvram")], keys=keys))
    assert ([each.kind for each in machine.offer.devices], list(machine.offer.nodes)) == (["nvram"], [])
    assert machine.offer.routes[0].keys[0].last == 9
    assert list(machine.offer.routes[1].posted.key_values) == [7]
    assert first[0].keys[0].first == 1, "whoever looks at the old routes sees them as they were"


@pytest.mark.parametrize("change", [pb.RouteKeys(route=2), pb.RouteKeys(route=1, keys=[pb.KeyRange(first=1, last=1)])])
def test_an_inventory_cannot_give_keys_to_a_route_without_any(machine: Machine, change: pb.RouteKeys) -> None:
    with pytest.raises(BackendUnavailableError, match="which has none"):
        machine.offer.take_inventory(pb.Inventory(devices=[], keys=[change]))
    assert [each.kind for each in machine.offer.devices] == ["vty"]


def test_a_mirror_is_written_within_its_end(machine: Machine) -> None:
    assert machine.offer.mirror_write(pb.MirrorWrite(name="m", offset=3, data=b"XY"))
    assert not machine.offer.mirror_write(pb.MirrorWrite(name="m", offset=4, data=b"XY"))
    assert machine.offer.mirror_write(pb.MirrorWrite(name="unknown", offset=4, data=b"XY")), "nobody reads it here"
    assert machine.offer.mirrors["m"] == b"arrXY"
