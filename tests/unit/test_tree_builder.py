# SPDX-License-Identifier: GPL-2.0-or-later
"""The seed tree: what Linux, GRUB and SLOF look for is there, and nothing is promised that has no owner."""

import shutil
import subprocess
from collections.abc import Iterable, Sequence

import pytest

from hcall_service.trees import builder as tree_builder
from hcall_service.trees.builder import FUNCTION_SETS, TreeBuildError, build_tree
from splitvisor.papr.hcall import Hcall
from splitvisor.rpc import device_tree_pb2 as pb
from splitvisor.rpc.trap_pb2 import MemoryRange, TreeNode, TreeProperty
from splitvisor.tree import fdt
from splitvisor.tree.fdt import Node

SEED = bytes(range(32))
LINUX_NEEDS = ("hcall-pft", "hcall-term", "hcall-tce", "hcall-splpar", "hcall-bulk", "hcall-set-mode")


def vty(address: int) -> TreeNode:
    return TreeNode(path=f"/vdevice/vty@{address:x}", properties=[TreeProperty(name="reg", value=address.to_bytes(4, "big"))])


def make_request(
    *,
    vcpus: int = 1,
    nodes: Sequence[TreeNode] = (),
    hypercalls: Iterable[int] = tuple(Hcall),
    initrd: MemoryRange | None = None,
) -> pb.BuildTreeRequest:
    return pb.BuildTreeRequest(
        vm="test",
        ram_bytes=512 << 20,
        vcpus=vcpus,
        hash_table_shift=22,
        bootargs="console=hvc0 panic=-1",
        kernel=MemoryRange(address=0x400000, length=0x287C918),
        kernel_little_endian=True,
        initrd=initrd,
        rtas_calls=[pb.RtasToken(name="power-off", token=0x2003), pb.RtasToken(name="ibm,os-term", token=0x201F)],
        hypercalls=hypercalls,
        nodes=[TreeNode(path="/vdevice"), *nodes],
        uuid=bytes(range(16)),
    )


def build(request: pb.BuildTreeRequest) -> Node:
    return build_tree(request, SEED).root


def value(root: Node, path: str, name: str) -> bytes:
    node = root.find(path)
    assert node is not None, path
    return node.properties[name]


def cells(root: Node, path: str, name: str) -> list[int]:
    raw = value(root, path, name)
    return [int.from_bytes(raw[index : index + 4]) for index in range(0, len(raw), 4)]


def test_linux_recognises_a_logical_partition() -> None:
    root = build(make_request())
    assert value(root, "/", "device_type") == b"chrp\0"
    assert value(root, "/", "compatible") == b"qemu,pseries\0"
    assert value(root, "/", "vm,uuid") == b"00010203-0405-0607-0809-0a0b0c0d0e0f\0"
    assert value(root, "/", "ibm,partition-name") == b"test\0"
    assert set(LINUX_NEEDS) <= set(value(root, "/rtas", "ibm,hypertas-functions").decode().split("\0"))


def test_one_memory_node_covers_ram() -> None:
    root = build(make_request())
    assert cells(root, "/memory@0", "reg") == [0, 0, 0, 512 << 20]
    assert [node.name for node in root.children if node.name.startswith("memory")] == ["memory@0"]


@pytest.mark.parametrize("vcpus", [1, 8])
def test_each_vcpu_is_a_power8_with_its_own_interrupt_server(vcpus: int) -> None:
    root = build(make_request(vcpus=vcpus))
    cpus = root.child("cpus")
    assert cpus is not None
    assert [node.name for node in cpus.children] == [f"PowerPC,POWER8@{index}" for index in range(vcpus)]
    for index in range(vcpus):
        path = f"/cpus/PowerPC,POWER8@{index}"
        assert cells(root, path, "reg") == cells(root, path, "ibm,ppc-interrupt-server#s") == [index]
        assert cells(root, path, "cpu-version") == [0x004D0200]
        assert cells(root, path, "timebase-frequency") == [512_000_000]
        assert cells(root, path, "ibm,pft-size") == [0, 22]
    assert cells(root, "/interrupt-controller", "ibm,interrupt-server-ranges") == [0, vcpus]
    assert cells(root, "/rtas", "rtas-size") == [20 + 2048 + 16 * vcpus + 8]


def test_rtas_publishes_the_registered_calls_with_their_tokens_only() -> None:
    root = build(make_request())
    assert cells(root, "/rtas", "power-off") == [0x2003]
    assert value(root, "/rtas", "ibm,extended-os-term") == b""
    request = make_request()
    del request.rtas_calls[:]
    rtas = build(request).child("rtas")
    assert rtas is not None
    assert "power-off" not in rtas.properties
    assert "ibm,extended-os-term" not in rtas.properties


@pytest.mark.parametrize("name", FUNCTION_SETS)
def test_a_function_set_is_named_only_when_each_of_its_hypercalls_has_an_owner(name: str) -> None:
    complete = value(build(make_request()), "/rtas", "ibm,hypertas-functions").decode().split("\0")
    assert name in complete
    for missing in FUNCTION_SETS[name]:
        root = build(make_request(hypercalls=set(Hcall) - {missing}))
        assert name not in value(root, "/rtas", "ibm,hypertas-functions").decode().split("\0")


def test_random_numbers_and_memop_are_published_when_they_have_an_owner() -> None:
    root = build(make_request())
    assert value(root, "/ibm,platform-facilities/ibm,random-v1", "compatible") == b"ibm,random\0"
    assert value(root, "/rtas", "qemu,hypertas-functions") == b"hcall-memop1\0"
    bare = build(make_request(hypercalls=()))
    assert bare.child("ibm,platform-facilities") is None
    assert value(bare, "/rtas", "qemu,hypertas-functions") == b""


def test_chosen_says_what_to_boot_and_with_what() -> None:
    root = build(make_request(initrd=MemoryRange(address=0x2C90000, length=0x263400), nodes=[vty(0x71000000)]))
    assert value(root, "/chosen", "bootargs") == b"console=hvc0 panic=-1\0"
    assert cells(root, "/chosen", "linux,initrd-start") == [0, 0x2C90000]
    assert cells(root, "/chosen", "linux,initrd-end") == [0, 0x2EF3400]
    assert cells(root, "/chosen", "qemu,boot-kernel") == [0, 0x400000, 0, 0x287C918]
    assert value(root, "/chosen", "qemu,boot-kernel-le") == b""
    assert value(root, "/chosen", "rng-seed") == SEED
    # Option vector 5: XICS and the hash page table are all there is.
    assert value(root, "/chosen", "ibm,arch-vec-5-platform-support") == bytes.fromhex("1700180019001a00")


def test_what_the_machine_has_loaded_is_reserved() -> None:
    request = make_request()
    request.kernel.CopyFrom(MemoryRange(address=0x400000, length=0x123456))
    request.initrd.CopyFrom(MemoryRange(address=0x600000, length=0x1000))
    assert build_tree(request, bytes(32)).reservations == [(0x400000, 0x123456), (0x600000, 0x1000)]
    request.ClearField("initrd")
    request.ClearField("kernel")
    assert build_tree(request, bytes(32)).reservations == []


def test_without_initrd_and_console_chosen_names_none() -> None:
    chosen = build(make_request()).child("chosen")
    assert chosen is not None
    assert not {"linux,initrd-start", "linux,initrd-end", "stdout-path", "linux,stdout-path"} & chosen.properties.keys()


def test_the_console_is_the_vty_with_the_lowest_unit_address() -> None:
    root = build(make_request(nodes=[vty(0x71000001), vty(0x30000000), vty(0x71000000)]))
    assert value(root, "/chosen", "stdout-path") == b"/vdevice/vty@30000000\0"
    assert value(root, "/chosen", "linux,stdout-path") == b"/vdevice/vty@30000000\0"


@pytest.mark.parametrize(
    ("nodes", "named"),
    [
        ([TreeNode(path="vdevice/x")], "parent"),
        ([TreeNode(path="/")], "node name"),
        ([TreeNode(path="")], "node name"),
        ([TreeNode(path="/nowhere/x")], "/nowhere/x"),
        ([TreeNode(path="/vdevice/a b")], "a b"),
        ([TreeNode(path="/vdevice/..@")], "node name"),
        ([TreeNode(path="//x")], "//x"),
        ([vty(1), vty(1)], "vty@1"),
        ([TreeNode(path="/cpus")], "stands in the tree already"),
        ([TreeNode(path="/x", properties=[TreeProperty(name="a b")])], "property name"),
        ([TreeNode(path="/x", properties=[TreeProperty(name="a"), TreeProperty(name="a")])], "stands twice"),
        ([TreeNode(path="/x", properties=[TreeProperty(name="a", value=bytes((1 << 20) + 1))])], "/x.*more than"),
        ([TreeNode(path=f"/x{number}") for number in range(tree_builder.MAX_BACKEND_NODES)], "more than"),
    ],
)
def test_a_node_that_cannot_stand_in_the_tree_is_refused_by_name(nodes: list[TreeNode], named: str) -> None:
    with pytest.raises(TreeBuildError, match=named):
        build(make_request(nodes=nodes))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (pb.BuildTreeRequest(vcpus=9), "vcpus"),
        (pb.BuildTreeRequest(ram_bytes=4097), "ram_bytes"),
        (pb.BuildTreeRequest(hash_table_shift=17), "hash_table_shift"),
        (pb.BuildTreeRequest(bootargs="x" * 2048), "bootargs"),
        (pb.BuildTreeRequest(bootargs="a\0b"), "bootargs"),
        (pb.BuildTreeRequest(uuid=b"short"), "uuid"),
        (pb.BuildTreeRequest(initrd=MemoryRange(address=1 << 29, length=1)), "initrd"),
        (pb.BuildTreeRequest(rtas_calls=[pb.RtasToken(name="power-off")]), "rtas_calls"),
        (pb.BuildTreeRequest(rtas_calls=[pb.RtasToken(name="rtas-size")]), "rtas_calls"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_by_field(change: pb.BuildTreeRequest, named: str) -> None:
    request = make_request()
    request.MergeFrom(change)
    with pytest.raises(TreeBuildError, match=named):
        build(request)


@pytest.mark.skipif(shutil.which("dtc") is None, reason="needs dtc")
def test_dtc_finds_no_error_in_the_tree() -> None:
    blob = fdt.emit(build_tree(make_request(vcpus=2, nodes=[vty(0x71000000)]), SEED))
    done = subprocess.run(["dtc", "-I", "dtb", "-O", "dts"], input=blob, capture_output=True, check=True, timeout=10)
    assert b"ERROR" not in done.stderr
    assert b'stdout-path = "/vdevice/vty@71000000";' in done.stdout
    assert fdt.read(blob).root.find("/cpus/PowerPC,POWER8@1") is not None


@pytest.mark.parametrize(
    ("words", "letters", "menu"),
    [(("nvram", "disk", "cdrom"), b"cd\0", False), (("cdrom",), b"d\0", False), (("menu",), None, True), ((), None, False)],
)
def test_what_to_boot_from_is_there_for_our_firmware_and_for_slof(
    words: Sequence[str], letters: bytes | None, menu: bool
) -> None:
    request = make_request()
    request.boot.extend(words)
    chosen = build(request).find("/chosen")
    assert chosen is not None
    assert chosen.properties.get("splitvisor,boot", b"") == b"".join(word.encode() + b"\0" for word in words)
    assert chosen.properties.get("qemu,boot-device") == letters
    assert ("qemu,boot-menu" in chosen.properties) is menu
    request.boot.append("not a word")
    with pytest.raises(TreeBuildError, match="boot"):
        build(request)


def test_processors_wait_at_a_spin_table_that_is_reserved() -> None:
    request = make_request(vcpus=3)
    request.spin_table = 0x1FDF_F000
    tree = build_tree(request, SEED)
    assert (0x1FDF_F000, 0x1000) in tree.reservations
    assert value(tree.root, "/cpus/PowerPC,POWER8@0", "status") == b"okay\0"
    for index in (1, 2):
        path = f"/cpus/PowerPC,POWER8@{index}"
        assert value(tree.root, path, "status") == b"disabled\0"
        assert value(tree.root, path, "enable-method") == b"spin-table\0"
        assert value(tree.root, path, "cpu-release-addr") == (0x1FDF_F000 + 32 * index).to_bytes(8, "big")
    request.spin_table = 512 << 20
    with pytest.raises(TreeBuildError, match="spin_table"):
        build_tree(request, SEED)
