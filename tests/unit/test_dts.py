# SPDX-License-Identifier: GPL-2.0-or-later
"""Trees as text: byte for byte what dtc prints."""

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitvisor.tree import fdt
from splitvisor.tree.dts import format_node, format_property, format_tree
from splitvisor.tree.fdt import Node, Tree
from tests.amounts import examples
from tests.real_trees import qemu_blob, seed_blob


def dtc(*arguments: str, blob: bytes) -> bytes:
    """What dtc makes of a blob."""
    if shutil.which("dtc") is None:
        pytest.skip("needs dtc")
    done = subprocess.run(["dtc", "-q", "-I", "dtb", *arguments], input=blob, capture_output=True, check=True, timeout=30)
    return done.stdout


def skip_unless_dtc_1_6() -> None:
    """dtc 1.7 separates the texts of a list differently."""
    if (
        shutil.which("dtc") is None
        or "DTC 1.6" not in subprocess.run(["dtc", "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
    ):
        pytest.skip("needs dtc 1.6, as Debian 12 has it")


def ours(blob: bytes) -> bytes:
    return "".join(f"{line}\n" for line in format_tree(fdt.read(blob))).encode()


@pytest.mark.parametrize("vcpus", [1, 8])
def test_a_seed_tree_is_printed_as_dtc_does(vcpus: int) -> None:
    skip_unless_dtc_1_6()
    blob = seed_blob(vcpus)
    assert ours(blob) == dtc("-O", "dts", blob=blob)


def test_qemus_tree_is_printed_as_dtc_does(tmp_path: Path) -> None:
    skip_unless_dtc_1_6()
    blob = qemu_blob(tmp_path)
    assert ours(blob) == dtc("-O", "dts", blob=blob)


_values = st.one_of(
    st.binary(max_size=24),
    st.text(st.characters(max_codepoint=0x7F), max_size=12).map(lambda text: text.encode() + b"\0"),
    st.lists(st.sampled_from([b"ok\0", b"\0", b'"\\\0', b"\a\b\t\n\v\f\r\0", b"\x7f\0", b"\x1b\0"]), max_size=4).map(b"".join),
)
_trees = st.builds(
    lambda values, reservations: Tree(
        Node("", {f"p{n}": value for n, value in enumerate(values)}, [Node("a@1", {"q": values[0]}, [Node("b")]), Node("c")]),
        reservations,
    ),
    st.lists(_values, min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(0, 2**63), st.integers(1, 2**63)), max_size=2),
)


@settings(max_examples=examples(60))
@given(_trees)
def test_any_tree_is_printed_as_dtc_does_and_dtc_reads_what_is_emitted(tree: Tree) -> None:
    skip_unless_dtc_1_6()
    blob = fdt.emit(tree)
    assert ours(blob) == dtc("-O", "dts", blob=blob)


@settings(max_examples=examples(40))
@given(_trees)
def test_what_dtc_makes_of_an_emitted_tree_is_the_same_tree(tree: Tree) -> None:
    blob = fdt.emit(tree)
    assert fdt.read(dtc("-O", "dtb", "-V", "17", blob=blob)) == tree
    assert fdt.read(dtc("-O", "dtb", "-V", "16", blob=blob)).root == tree.root


def test_a_node_is_printed_with_all_below_it() -> None:
    node = Node("a@1", {"x": b"y\0", "e": b""}, [Node("b", {"n": b"\0\0\0\1"})])
    assert list(format_node(node)) == ["a@1 {", '\tx = "y";', "\te;", "", "\tb {", "\t\tn = <0x01>;", "\t};", "};"]


def test_a_value_cannot_bring_control_characters_to_a_terminal() -> None:
    for value in (b"\x1b[2Jxx\0", b"\x9b2Jxxx\0", b"a\rb\0"):
        assert format_property("p", value).isprintable()
