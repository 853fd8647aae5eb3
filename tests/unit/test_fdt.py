# SPDX-License-Identifier: GPL-2.0-or-later
"""The flattened tree's reader and emitter: what goes out comes back, dtc agrees, and no blob breaks the reader."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitvisor import fdt
from splitvisor.fdt import FdtError, Node, Tree, emit, read

_name = st.from_regex(r"[A-Za-z][0-9A-Za-z,._+\-]{0,20}(@[0-9a-f,]{1,12})?", fullmatch=True)
_property_name = st.from_regex(r"[#A-Za-z0-9,._+*?\-]{1,31}", fullmatch=True)
_properties = st.dictionaries(_property_name, st.binary(max_size=40), max_size=5)


def _unique(nodes: list[Node]) -> list[Node]:
    return list({node.name: node for node in nodes}.values())


_nodes = st.recursive(
    st.builds(Node, _name, _properties),
    lambda inner: st.builds(Node, _name, _properties, st.lists(inner, max_size=4).map(_unique)),
    max_leaves=12,
)
_reservation = st.tuples(st.integers(0, 2**63), st.integers(1, 2**63))
_trees = st.builds(
    Tree,
    st.builds(Node, st.just(""), _properties, st.lists(_nodes, max_size=5).map(_unique)),
    st.lists(_reservation, max_size=3),
    st.integers(0, 2**32 - 1),
)


def _small() -> Tree:
    memory = Node("memory@0", {"device_type": b"memory\0", "reg": struct.pack(">QQ", 0, 1 << 29)})
    chosen = Node("chosen", {"bootargs": b"console=hvc0\0", "empty": b""}, [Node("deep")])
    return Tree(Node("", {"model": b"x\0", "reg": b""}, [memory, chosen]), [(0x1000, 0x2000)], 3)


@settings(max_examples=60, deadline=None)
@given(_trees)
def test_an_emitted_tree_is_read_back_equal_and_emits_the_same_bytes(tree: Tree) -> None:
    blob = emit(tree)
    assert read(blob) == tree
    assert emit(read(blob)) == blob


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_mutated_blob_is_read_or_refused_with_fdt_error_only(data: st.DataObject) -> None:
    blob = bytearray(emit(_small()))
    for _ in range(data.draw(st.integers(1, 4))):
        if data.draw(st.booleans()):
            offset = data.draw(st.integers(0, len(blob) // 4 - 1)) * 4
            words = (0, 1, 2, 3, 4, 9, 0x7FFFFFFF, 0xFFFFFFFF, len(blob))
            struct.pack_into(">I", blob, offset, data.draw(st.sampled_from(words)))
        else:
            blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    try:
        tree = read(bytes(blob))
    except FdtError:
        return
    assert read(emit(tree)) == tree


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(FdtError):
        read(noise)


def test_every_truncation_is_refused() -> None:
    blob = emit(_small())
    for size in range(len(blob)):
        with pytest.raises(FdtError):
            read(blob[:size])
        with pytest.raises(FdtError):
            read(blob[:4] + struct.pack(">I", size) + blob[8:size] if size >= 8 else blob[:size])


@pytest.mark.skipif(shutil.which("dtc") is None, reason="needs dtc")
def test_dtc_reads_what_is_emitted(tmp_path: Path) -> None:
    path = tmp_path / "tree.dtb"
    path.write_bytes(emit(_small()))
    done = subprocess.run(["dtc", "-I", "dtb", "-O", "dts", str(path)], capture_output=True, text=True, check=True, timeout=10)
    assert "/memreserve/\t0x0000000000001000 0x0000000000002000;" in done.stdout
    assert 'bootargs = "console=hvc0";' in done.stdout
    assert "reg = <0x00 0x00 0x00 0x20000000>;" in done.stdout


@pytest.mark.skipif(shutil.which("dtc") is None, reason="needs dtc")
@pytest.mark.parametrize("version", ["16", "17"])
def test_what_dtc_writes_is_read(version: str) -> None:
    source = b'/dts-v1/; /memreserve/ 0x10 0x20; / { a = "b"; c { d = <1 2>; e; }; f@1 { reg = <1>; }; };'
    command = ["dtc", "-I", "dts", "-O", "dtb", "-V", version, "-b", "5", "-q"]
    done = subprocess.run(command, input=source, capture_output=True, check=True, timeout=10)
    tree = read(done.stdout)
    assert tree.boot_cpu == 5
    assert tree.reservations == [(0x10, 0x20)]
    assert tree.root.properties == {"a": b"b\0"}
    assert [node.name for node in tree.root.children] == ["c", "f@1"]
    assert tree.root.children[0].properties == {"d": struct.pack(">II", 1, 2), "e": b""}


def _structure(*words: int, strings: bytes = b"a\0") -> bytes:
    body = struct.pack(f">{len(words)}I", *words)
    header = struct.pack(
        ">10I", fdt.MAGIC, 56 + len(body) + len(strings), 56, 56 + len(body), 40, 17, 16, 0, len(strings), len(body)
    )
    return header + bytes(16) + body + strings


_X = int.from_bytes(b"x\0\0\0", "big")


def test_the_hand_made_blob_that_the_next_test_spoils_is_valid() -> None:
    assert read(_structure(4, 1, 0, 3, 0, 0, 4, 1, _X, 2, 2, 9)) == Tree(Node("", {"a": b""}, [Node("x")]))


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (_structure(1, 0, 3, 0, 0, 3, 0, 0, 2, 9), "second 'a'"),
        (_structure(1, 0, 1, _X, 2, 1, _X, 2, 2, 9), "second 'x'"),
        (_structure(1, 0, 1, _X, 2, 3, 0, 0, 2, 9), "not before a node's children"),
        (_structure(1, 0, 2, 1, 0, 2, 9), "node name"),
        (_structure(1, 0, 2, 1, _X, 2, 9), "second root"),
        (_structure(1, _X, 2, 9), "node name"),
        (_structure(1, 0, 3, 0, 5, 2, 9), "property name"),
        (_structure(1, 0, 3, 0, 0xFFFFFFFF, 2, 9), "property name"),
        (_structure(1, 0, 3, 0xFFFFFFFF, 0, 2, 9), "leave the structure block"),
        (_structure(1, 0, 3, 0, 0, 2, 9, strings=b"a/b\0"), "property name"),
        (_structure(1, 0, 3, 0, 0, 2, 9, strings=b"abc"), "property name"),
        (_structure(1, 0, 2, 2, 9), "none is open"),
        (_structure(1, 0, 9), "a node is open"),
        (_structure(9), "no root"),
        (_structure(1, 0, 2), "no end tag"),
        (_structure(1, 0, 2, 9, 4), "header says"),
        (_structure(1, 0, 7, 2, 9), "tag: 0x7"),
        (_structure(*[1, 0], *[1, _X] * fdt.MAX_DEPTH, *[2] * (fdt.MAX_DEPTH + 1), 9), "deeper than"),
        (_structure(1, 0, *(word for n in range(fdt.MAX_NODES) for word in (1, 0x61000000 + n, 2)), 2, 9), "node"),
    ],
)
def test_a_broken_structure_is_refused_with_the_check_that_failed(blob: bytes, message: str) -> None:
    with pytest.raises(FdtError, match=message):
        read(blob)


@pytest.mark.parametrize(
    ("offset", "word", "message"),
    [
        (0, 0, "magic"),
        (4, 1, "totalsize"),
        (8, 58, "structure block"),
        (8, 0, "overlap|tag"),
        (8, 0xFFFFFFFC, "structure block"),
        (12, 0xFFFFFFFF, "strings block"),
        (12, 40, "overlaps"),
        (16, 44, "not aligned"),
        (16, 0x10000, "not terminated"),
        (16, 0, "wraps around|not terminated"),
        (20, 18, "version"),
        (24, 15, "last compatible version"),
        (36, 0x7FFFFFFF, "structure block"),
    ],
)
def test_a_broken_header_is_refused_with_the_check_that_failed(offset: int, word: int, message: str) -> None:
    blob = bytearray(_structure(1, 0, 2, 9))
    struct.pack_into(">I", blob, offset, word)
    with pytest.raises(FdtError, match=message):
        read(bytes(blob))


def test_a_blob_above_2_mib_is_refused_before_anything_else() -> None:
    with pytest.raises(FdtError, match="size"):
        read(bytes(fdt.MAX_SIZE + 1))


@pytest.mark.parametrize(
    "tree",
    [
        Tree(Node("/")),
        Tree(Node("", {"a b": b""})),
        Tree(Node("", {"ä": b""})),
        Tree(Node("", {}, [Node("a"), Node("a")])),
        Tree(Node("", {}, [Node("a/b")])),
        Tree(Node("", {}, [Node("")])),
        Tree(Node("", {"a": bytes(fdt.MAX_SIZE)})),
        Tree(Node(""), [(0, 0)]),
        Tree(Node(""), [(1 << 64, 1)]),
        Tree(Node(""), boot_cpu=-1),
    ],
)
def test_a_tree_that_could_not_be_read_back_is_not_emitted(tree: Tree) -> None:
    with pytest.raises(FdtError):
        emit(tree)


def test_find_takes_full_paths_from_its_node() -> None:
    root = _small().root
    assert root.find("/") is root
    chosen = root.find("/chosen")
    assert chosen is not None
    assert root.find("/chosen/deep") is chosen.find("/deep") is chosen.child("deep")
    assert root.find("chosen") is None
    assert root.find("/memory") is None
    assert root.find("/chosen/") is None
    assert root.find("/nothing/deep") is None
