# SPDX-License-Identifier: GPL-2.0-or-later
"""The flattened tree's reader and emitter: what goes out comes back, dtc agrees, and no blob breaks the reader."""

import itertools
import shutil
import struct
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitvisor.tree import fdt
from splitvisor.tree.fdt import Check, FdtError, Node, Tree, emit, read
from tests.amounts import examples

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


@settings(max_examples=examples(60))
@given(_trees)
def test_an_emitted_tree_is_read_back_equal_and_emits_the_same_bytes(tree: Tree) -> None:
    blob = emit(tree)
    assert read(blob) == tree
    assert emit(read(blob)) == blob


@settings(max_examples=examples(300))
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


@settings(max_examples=examples(100))
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


def _patched(offset: int, word: int) -> bytes:
    blob = bytearray(_structure(1, 0, 2, 9))
    struct.pack_into(">I", blob, offset, word)
    return bytes(blob)


def _reserving(*entries: tuple[int, int], skip: int = 0) -> bytes:
    """A blob whose reservation block is behind everything else, and behind some bytes more."""
    blob = bytearray(_structure(1, 0, 2, 9, strings=b"a\0a\0a\0a\0") + bytes(skip))
    struct.pack_into(">I", blob, 16, len(blob))
    blob += b"".join(struct.pack(">QQ", *entry) for entry in entries)
    struct.pack_into(">I", blob, 4, len(blob))
    return bytes(blob)


def _shifted(shift: int) -> bytes:
    """A blob whose structure and strings blocks begin so many bytes later."""
    blob = bytearray(_structure(1, 0, 2, 9))
    blob[56:56] = bytes(shift)
    struct.pack_into(">3I", blob, 4, len(blob), 56 + shift, 72 + shift)
    return bytes(blob)


_WIDE = tuple(int.from_bytes(bytes(name), "big") << 8 for name in itertools.product(b"abcdefghijklmnopqrstuvwxyz", repeat=3))
"""Names of three letters as words."""
_NAMES = b"".join(bytes(name) + b"\0" for name in itertools.product(b"abcdefghijkl", repeat=3))
_MANY_NODES = _structure(1, 0, *(word for name in _WIDE[: fdt.MAX_NODES] for word in (1, name, 2)), 2, 9)
_MANY_PROPERTIES = _structure(
    1, 0, *(word for n in range(fdt.MAX_PROPERTIES + 1) for word in (3, 0, 4 * n)), 2, 9, strings=_NAMES
)

BROKEN: list[tuple[Check, int, bytes]] = [
    (Check.SIZE, fdt.MAX_SIZE, bytes(fdt.MAX_SIZE + 1)),
    (Check.SIZE, fdt.MAX_SIZE, _shifted(fdt.MAX_SIZE)),
    (Check.HEADER, 35, _patched(0, fdt.MAGIC)[:35]),
    (Check.HEADER, 36, struct.pack(">9I", fdt.MAGIC, 36, 36, 36, 36, 17, 16, 0, 0)),
    (Check.MAGIC, 0, _patched(0, 0)),
    (Check.TOTAL_SIZE, 4, _patched(4, 1)),
    (Check.TOTAL_SIZE, 4, _structure(1, 0, 2, 9) + b"\0"),
    (Check.VERSION, 20, _patched(20, 15)),
    (Check.VERSION, 20, _patched(20, 18)),
    (Check.COMPATIBLE, 24, _patched(24, 15)),
    (Check.COMPATIBLE, 24, _patched(24, 18)),
    (Check.RESERVATION_BLOCK, 0x10000, _patched(16, 0x10000)),
    (Check.RESERVATION_BLOCK, 96, _reserving((1, 1))),
    (Check.RESERVATION_BLOCK, 96, _reserving((1, 0))),
    (Check.RESERVATION_ALIGNMENT, 44, _patched(16, 44)),
    (Check.RESERVATION_ALIGNMENT, 84, _reserving((0, 0), skip=4)),
    (Check.RESERVATION, 96, _reserving((1, 1), (2**64 - 1, 2), (0, 0))),
    (Check.RESERVATION_COUNT, 0, _reserving(*[(1, 1)] * (fdt.MAX_RESERVATIONS + 1), (0, 0))),
    (Check.STRUCTURE_BLOCK, 8, _patched(8, 0xFFFFFFFC)),
    (Check.STRUCTURE_BLOCK, 8, _patched(36, 0x7FFFFFFF)),
    (Check.STRUCTURE_ALIGNMENT, 58, _patched(8, 58)),
    (Check.STRUCTURE_ALIGNMENT, 58, _shifted(2)),
    (Check.STRUCTURE_SIZE, 72, _structure(1, 0, 2, 9, 4)),
    (Check.STRINGS_BLOCK, 12, _patched(12, 0xFFFFFFFF)),
    (Check.OVERLAP, 40, _patched(12, 40)),
    (Check.OVERLAP, 0, _patched(12, 0)),
    (Check.TAG, 64, _structure(1, 0, 7, 2, 9)),
    (Check.END_TAG, 68, _structure(1, 0, 2)),
    (Check.END_TAG, 64, _structure(1, 0, 9)),
    (Check.END_TAG, 56, _structure(9)),
    (Check.ROOT, 60, _structure(1, _X, 2, 9)),
    (Check.ROOT, 68, _structure(1, 0, 2, 1, _X, 2, 9)),
    (Check.DEPTH, 568, _structure(*[1, 0], *[1, _X] * fdt.MAX_DEPTH, *[2] * (fdt.MAX_DEPTH + 1), 9)),
    (Check.NODE_COUNT, 0, _MANY_NODES),
    (Check.NODE_NAME, 68, _structure(1, 0, 1, 0, 2, 2, 9)),
    (Check.NODE_NAME, 68, _structure(1, 0, 1, 0x612F6200, 2, 2, 9)),
    (Check.NODE_NAME, 68, _structure(1, 0, 1, *[0x61616161] * 32, 0, 2, 2, 9)),
    (Check.NODE_TWICE, 76, _structure(1, 0, 1, _X, 2, 1, _X, 2, 2, 9)),
    (Check.NODE_END, 68, _structure(1, 0, 2, 2, 9)),
    (Check.PROPERTY_PLACE, 76, _structure(1, 0, 1, _X, 2, 3, 0, 0, 2, 9)),
    (Check.PROPERTY_PLACE, 56, _structure(3, 0, 0, 9)),
    (Check.PROPERTY_SIZE, 64, _structure(1, 0, 3, 0)),
    (Check.PROPERTY_SIZE, 64, _structure(1, 0, 3, 0xFFFFFFFF, 0, 2, 9)),
    (Check.PROPERTY_NAME, 64, _structure(1, 0, 3, 0, 5, 2, 9)),
    (Check.PROPERTY_NAME, 64, _structure(1, 0, 3, 0, 0xFFFFFFFF, 2, 9)),
    (Check.PROPERTY_NAME, 64, _structure(1, 0, 3, 0, 0, 2, 9, strings=b"a/b\0")),
    (Check.PROPERTY_NAME, 64, _structure(1, 0, 3, 0, 0, 2, 9, strings=b"abc")),
    (Check.PROPERTY_TWICE, 76, _structure(1, 0, 3, 0, 0, 3, 0, 0, 2, 9)),
    (Check.PROPERTY_COUNT, 0, _MANY_PROPERTIES),
]


@pytest.mark.parametrize(("check", "offset", "blob"), BROKEN, ids=[f"{check}-{n}" for n, (check, _, _) in enumerate(BROKEN)])
def test_a_broken_blob_is_refused_with_the_check_and_the_offset(check: Check, offset: int, blob: bytes) -> None:
    with pytest.raises(FdtError) as caught:
        read(blob)
    assert caught.value.check is check
    assert str(caught.value).startswith(f"{check}: ")
    assert str(caught.value).endswith(f" at {caught.value.offset:#x}")
    if offset or check in (Check.MAGIC, Check.OVERLAP):
        assert caught.value.offset == offset


def test_every_check_of_the_reader_is_broken_above() -> None:
    assert {check for check, _, _ in BROKEN} == set(Check) - {Check.BOOT_CPU}


_64K = (64 << 10) // 4 - 32
"""Words of a structure block that makes a blob of 64 KiB."""


@pytest.mark.parametrize(
    "blob",
    [
        pytest.param(_structure(1, 0, *[4] * _64K, 2, 9), id="NOPs"),
        pytest.param(_structure(1, 0, *[1, _X] * (fdt.MAX_DEPTH - 1), *[4] * _64K, 9), id="NOPs in the deepest node"),
        pytest.param(_structure(1, 0, *(word for name in _WIDE[: _64K // 3] for word in (1, name, 2)), 2, 9), id="nodes"),
        pytest.param(
            _structure(
                1,
                0,
                *(word for name in _WIDE[:15] for word in (1, name, *(w for n in range(1000) for w in (3, 0, 4 * n)), 2)),
                2,
                9,
                strings=_NAMES,
            ),
            id="properties of different names",
        ),
        pytest.param(_structure(1, 0, 3, 0, 0, 2, 9, strings=b"a" * (64 << 10)), id="a name without end"),
        pytest.param(
            _structure(
                1,
                0,
                *(word for name in _WIDE[:5] for word in (1, name, *(w for n in range(1000) for w in (3, 0, n)), 2)),
                2,
                9,
                strings=b"a" * 900 + b"\0",
            ),
            id="names that overlap",
        ),
        pytest.param(_structure(1, 0, *[1, 0x61616161, *[0x61616161] * 30, 0x61616100] * 400, 9), id="long node names"),
        pytest.param(_structure(1, 0, 3, (64 << 10), 0, *[0] * (16 << 10), 2, 9), id="a long value"),
        pytest.param(_reserving(*[(1, 1)] * fdt.MAX_RESERVATIONS, (0, 0)), id="reservations"),
        pytest.param(_structure(1, 0, *[4] * (fdt.MAX_SIZE // 4 - 32), 2, 9), id="2 MiB of NOPs"),
        pytest.param(_MANY_NODES, id="too many nodes"),
    ],
)
def test_no_blob_takes_more_than_50_ms_for_64_kib(blob: bytes) -> None:
    times = []
    for _ in range(3):
        started = time.thread_time()
        with suppress(FdtError):
            read(blob)
        times.append(time.thread_time() - started)
    assert min(times) < 0.050 * max(1.0, len(blob) / (64 << 10))


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
