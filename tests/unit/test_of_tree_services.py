# SPDX-License-Identifier: GPL-2.0-or-later
"""Client services about the device tree."""

from __future__ import annotations

import pytest

from of_client_service.device_tree import MAX_GROWTH, MAX_PROPERTY_BYTES
from splitvisor.rpc import device_tree_pb2 as dt
from splitvisor.tree import fdt
from tests.unit.of_machine import BUFFER, RAM_BYTES, Client, cells, sample_tree


@pytest.fixture(name="client")
def make_client() -> Client:
    return Client()


@pytest.mark.parametrize(
    ("specifier", "canonical"),
    [
        ("/", "/"),
        ("/vdevice/vty@71000000", "/vdevice/vty@71000000"),
        ("/vdevice/vty@0071000000", "/vdevice/vty@71000000"),
        ("/vdevice/@71000001", "/vdevice/vty@71000001"),
        ("/memory", "/memory@0"),
        ("/cpus/PowerPC,POWER8@1", "/cpus/PowerPC,POWER8@1"),
        ("console", "/vdevice/vty@71000000"),
        ("console:9600", "/vdevice/vty@71000000"),
        ("/vdevice/vty", "/vdevice/vty@71000001"),
    ],
)
def test_finddevice_follows_device_specifiers(client: Client, specifier: str, canonical: str) -> None:
    phandle = client.find(specifier)
    length = client.call("package-to-path", phandle, BUFFER, 256)
    assert client.peek(BUFFER, length + 1) == canonical.encode() + b"\0"


@pytest.mark.parametrize("specifier", ["", "nothing", "/nothing", "/memory@1", "/vdevice/vty@g", "/chosen/x", "name", "@0", "/@"])
def test_finddevice_refuses_what_leads_nowhere(client: Client, specifier: str) -> None:
    assert client.find(specifier) == -1


def test_canon_resolves_aliases_and_keeps_arguments(client: Client) -> None:
    assert client.call("canon", "console:9600,n", BUFFER, 256) == len("/vdevice/vty@71000000:9600,n")
    assert client.peek(BUFFER, 29) == b"/vdevice/vty@71000000:9600,n\0"
    assert client.call("canon", "/nothing", BUFFER, 256) == -1


def test_paths_are_cut_to_the_buffer_and_the_whole_length_is_returned(client: Client) -> None:
    client.poke(BUFFER, b"#" * 32)
    assert client.call("package-to-path", client.find("console"), BUFFER, 8) == 21
    assert client.peek(BUFFER, 10) == b"/vdevice##"


FAR = 0xFFFF_FFFF
"""No RAM."""


@pytest.mark.parametrize("buffer", [0, FAR, RAM_BYTES, RAM_BYTES - 1])
@pytest.mark.parametrize(
    ("service", "arguments", "answer"),
    [
        ("getprop", ("/chosen", "bootargs"), len(b"quiet\0")),
        ("canon", ("console",), len("/vdevice/vty@71000000")),
        ("package-to-path", ("/chosen",), len("/chosen")),
        ("instance-to-path", ("stdout",), len("/vdevice/vty@71000000")),
        ("setprop", ("/chosen", "new"), 0),
        ("read", ("stdin",), 0),
        ("write", ("stdout",), 0),
    ],
)
def test_a_buffer_of_no_bytes_may_be_anywhere(
    client: Client, service: str, arguments: tuple[str, ...], answer: int, buffer: int
) -> None:
    given = [_handle(client, each) if number == 0 and service != "canon" else each for number, each in enumerate(arguments)]
    assert client.call(service, *given, buffer, 0) == answer
    # With room for a byte it must be there.
    if service != "read":
        assert (client.call(service, *given, buffer, 1) == -1) == (buffer in (FAR, RAM_BYTES))


@pytest.mark.parametrize("buffer", [FAR, RAM_BYTES, RAM_BYTES - 4])
def test_a_buffer_that_is_too_short_in_ram_gets_nothing(client: Client, buffer: int) -> None:
    client.poke(RAM_BYTES - 4, b"####")
    for service, given in (("getprop", (client.find("/chosen"), "bootargs")), ("canon", ("console",))):
        assert client.call(service, *given, buffer, 256) == -1
    assert client.call("nextprop", client.find("/chosen"), "", buffer) == -1
    assert client.peek(RAM_BYTES - 4, 4) == b"####"


@pytest.mark.parametrize("method", ["read", "write"])
def test_methods_of_terminals_take_a_buffer_of_no_bytes_anywhere(client: Client, method: str) -> None:
    assert client.call_all("call-method", method, _handle(client, "stdout"), 0, FAR, returns=2) == (0, 0)


def test_services_go_on_after_quiesce(client: Client) -> None:
    client.call_all("quiesce", returns=0)
    chosen = client.find("/chosen")
    assert client.call("getprop", chosen, "bootargs", BUFFER, 6) == 6
    assert client.call("claim", 0x60_0000, 0x1000, 0) == 0x60_0000
    assert client.call("setprop", chosen, "late", BUFFER, 4) == 4


def _handle(client: Client, name: str) -> int:
    """The phandle of a path, or the ihandle that /chosen has under a name."""
    return client.find(name) if name.startswith("/") else int.from_bytes(client.read_property("/chosen", name), "big")


def test_a_walk_by_child_peer_and_parent_meets_every_node_once(client: Client) -> None:
    root = client.call("peer", 0)
    met, pending = [], [root]
    while pending:
        phandle = pending.pop()
        met.append(phandle)
        child = client.call("child", phandle)
        while child:
            assert client.call("parent", child) == phandle
            pending.append(child)
            child = client.call("peer", child)
    assert len(met) == len(set(met)) == 12
    assert client.call("parent", root) == 0
    assert client.call("peer", root) == 0
    assert [client.call(service, 0xBAD) for service in ("child", "peer", "parent")] == [0, 0, 0]


def test_phandles_of_the_tree_are_kept_and_the_others_are_published(client: Client) -> None:
    assert client.find("/interrupt-controller") == 0x1111
    for path in ("/", "/chosen", "/vdevice/vty@71000000"):
        assert client.read_property(path, "phandle") == cells(client.find(path))


def test_nextprop_lists_every_property_in_order(client: Client) -> None:
    package, names, previous = client.find("/rtas"), [], ""
    while client.call("nextprop", package, previous, BUFFER) == 1:
        previous = client.peek(BUFFER, 64).partition(b"\0")[0].decode()
        names.append(previous)
    assert names == ["name", "rtas-size", "power-off", "phandle"]
    assert client.call("nextprop", package, "nothing", BUFFER) == -1
    assert client.call("nextprop", 0xBAD, "", BUFFER) == -1
    assert client.call("nextprop", package, 0, BUFFER) == 1


def test_getprop_gives_what_fits_and_says_how_much_there_is(client: Client) -> None:
    client.poke(BUFFER, b"####")
    assert client.call("getprop", client.find("/chosen"), "bootargs", BUFFER, 2) == 6
    assert client.peek(BUFFER, 4) == b"qu##"
    assert client.call("getproplen", client.find("/chosen"), "bootargs") == 6
    assert client.read_property("/vdevice/vty@71000000", "name") == b"vty\0"
    assert client.call("getproplen", client.find("/memory"), "name") == 7


def test_getprop_fails_on_what_is_not_there(client: Client) -> None:
    chosen = client.find("/chosen")
    assert client.call("getprop", chosen, "nothing", BUFFER, 4) == -1
    assert client.call("getprop", 0xBAD, "bootargs", BUFFER, 4) == -1
    assert client.call("getproplen", chosen, "nothing") == -1
    assert client.call("getprop", chosen, "bootargs", RAM_BYTES - 2, 6) == -1
    assert client.call("getprop", chosen, RAM_BYTES, BUFFER, 6) == -1


def test_setprop_changes_and_makes_properties(client: Client) -> None:
    client.poke(BUFFER, b"debug\0")
    chosen = client.find("/chosen")
    assert client.call("setprop", chosen, "bootargs", BUFFER, 6) == 6
    assert client.call("setprop", chosen, "linux,new", BUFFER, 3) == 3
    assert client.call("setprop", chosen, "linux,empty", 0, 0) == 0
    assert client.read_property("/chosen", "bootargs") == b"debug\0"
    assert client.read_property("/chosen", "linux,new") == b"deb"
    assert client.read_property("/chosen", "linux,empty") == b""


@pytest.mark.parametrize("name", ["phandle", "name", "", "white space", "a/b", "x" * 32])
def test_setprop_refuses_names_that_a_tree_cannot_have(client: Client, name: str) -> None:
    assert client.call("setprop", client.find("/chosen"), name, BUFFER, 4) == -1


def test_setprop_refuses_bounds_of_the_initial_ram_disk_that_are_no_numbers(client: Client) -> None:
    chosen = client.find("/chosen")
    assert [client.call("setprop", chosen, "linux,initrd-start", BUFFER, size) for size in (3, 4, 8, 16)] == [-1, 4, 8, -1]


def test_setprop_has_limits_and_the_tree_can_be_stored_at_the_limit(client: Client) -> None:
    rtas = client.find("/rtas")
    assert client.call("setprop", rtas, "large", BUFFER, MAX_PROPERTY_BYTES + 1) == -1
    made = 0
    while client.call("setprop", rtas, f"large{made}", BUFFER, MAX_PROPERTY_BYTES) > 0:
        made += 1
    assert 0 < made <= MAX_GROWTH // MAX_PROPERTY_BYTES
    package, made = client.find("/chosen"), 0
    while client.call("setprop", package, f"small{made}", BUFFER, 1) > 0:
        made += 1
        assert made < fdt.MAX_PROPERTIES
    client.call_all("quiesce", returns=0)
    assert fdt.read(client.store.revisions[-1][1]).root.find("/chosen") is not None


def test_a_property_that_shrinks_makes_room(client: Client) -> None:
    rtas = client.find("/rtas")
    for _ in range(2 * MAX_GROWTH // MAX_PROPERTY_BYTES):
        assert client.call("setprop", rtas, "large", BUFFER, MAX_PROPERTY_BYTES) == MAX_PROPERTY_BYTES
        assert client.call("setprop", rtas, "large", BUFFER, 1) == 1


def test_quiesce_stores_what_the_client_has_changed_with_phandles(client: Client) -> None:
    client.poke(BUFFER, b"debug\0")
    client.call("setprop", client.find("/chosen"), "bootargs", BUFFER, 6)
    client.call_all("quiesce", returns=0)
    origin, blob = client.store.revisions[-1]
    chosen = fdt.read(blob).root.find("/chosen")
    assert origin == dt.TREE_ORIGIN_QUIESCE
    assert chosen is not None
    assert chosen.properties["bootargs"] == b"debug\0"
    assert chosen.properties["phandle"] == cells(client.find("/chosen"))


def test_phandles_that_a_tree_has_twice_are_made_unique() -> None:
    tree = sample_tree()
    for node in tree.root.children:
        node.properties["phandle"] = cells(7)
    tree.root.properties["phandle"] = cells(0xFFFF_FFFF)
    client = Client(tree)
    phandles = [client.find(f"/{node.name}") for node in tree.root.children] + [client.find("/")]
    assert len(set(phandles)) == len(phandles)
    assert 7 in phandles
    assert -1 not in phandles
    assert 0 not in phandles
