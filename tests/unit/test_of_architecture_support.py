# SPDX-License-Identifier: GPL-2.0-or-later
"""ibm,client-architecture-support."""

from __future__ import annotations

import asyncio
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from of_client_service.architecture_support import ARCHITECTURE_2_07, MAX_PAIRS, VectorError, agreed_vector_5, parse
from splitvisor.backend import Call
from splitvisor.declarations.guest_memory import GuestAddressError
from splitvisor.papr.codes import H
from splitvisor.papr.processor import PVR_POWER8
from splitvisor.rpc import device_tree_pb2 as dt
from splitvisor.tree import fdt
from tests.unit.of_machine import BUFFER, RAM_BYTES, Client, cells

POWER8 = (0xFFFF_0000, 0x004D_0000)
POWER9 = (0xFFFF_0000, 0x004E_0000)
LEVEL_2_07 = (0xFFFF_FFFF, ARCHITECTURE_2_07)
LEVEL_3_00 = (0xFFFF_FFFF, 0x0F00_0005)
END = (0xFFFF_FFFE, 0x0F00_0001)


def option_5(**values: int) -> bytes:
    """Option vector 5 as Linux has it, with chosen bytes: affinity (5), interrupts (23), mmu (24)."""
    vector = bytearray(26)
    for name, value in values.items():
        vector[{"affinity": 5, "interrupts": 23, "mmu": 24}[name] - 1] = value
    return bytes(vector)


def block(*pairs: tuple[int, int], options: tuple[bytes, ...] = (b"\0",) * 4 + (option_5(),)) -> bytes:
    processors = b"".join(struct.pack(">II", *pair) for pair in (*pairs, END))
    return processors + bytes([len(options) - 1]) + b"".join(bytes([len(data) - 1]) + data for data in options)


def negotiate(client: Client, data: bytes, address: int = BUFFER) -> int:
    """Call the method; return the platform's answer."""
    root = client.call("open", "/")
    client.poke(address, data)
    caught, answer = client.call_all("call-method", "ibm,client-architecture-support", root, address, returns=2)
    assert caught == 0
    return answer


@pytest.mark.parametrize(
    ("pairs", "version"),
    [
        ((POWER8, LEVEL_2_07), ARCHITECTURE_2_07),
        ((POWER9, LEVEL_3_00, LEVEL_2_07), ARCHITECTURE_2_07),
        ((POWER8, POWER9), PVR_POWER8),
        (((0xFFFF_FFFF, PVR_POWER8),), PVR_POWER8),
    ],
)
def test_the_processor_that_was_agreed_is_in_every_cpu_node(pairs: tuple[tuple[int, int], ...], version: int) -> None:
    client = Client()
    assert negotiate(client, block(*pairs)) == H.SUCCESS
    for index in range(2):
        assert client.read_property(f"/cpus/PowerPC,POWER8@{index}", "cpu-version") == cells(version)


@pytest.mark.parametrize(("asked", "agreed"), [(0x00, 0x00), (0x80, 0x80), (0xFF, 0x80)])
def test_only_what_both_sides_support_is_agreed(asked: int, agreed: int) -> None:
    client = Client()
    assert negotiate(client, block(POWER8, options=(b"\0",) * 4 + (option_5(affinity=asked, mmu=0x80, interrupts=0x80),))) == 0
    vector = client.read_property("/chosen", "ibm,architecture-vec-5")
    assert vector[0] == len(vector) - 2
    assert vector[5] == agreed
    assert vector[23] == vector[24] == 0  # XICS, hash MMU
    assert len(vector) > 24  # Linux does not look at a shorter one


def test_the_agreement_is_stored() -> None:
    client = Client()
    negotiate(client, block(POWER8, LEVEL_2_07))
    origin, blob = client.store.revisions[-1]
    chosen = fdt.read(blob).root.find("/chosen")
    assert origin == dt.TREE_ORIGIN_CAS
    assert chosen is not None
    assert "ibm,architecture-vec-5" in chosen.properties


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (block(POWER9, LEVEL_3_00), H.HARDWARE),
        (block(POWER8, options=(b"\0",) * 4 + (option_5(mmu=0x40),)), H.HARDWARE),
        (block(POWER8, options=(b"\0",) * 4 + (option_5(interrupts=0x40),)), H.HARDWARE),
        (block(POWER8, options=(b"\0",) * 4 + (option_5(mmu=0xC0),)), H.HARDWARE),
        (block(POWER8, options=(b"\0",) * 4), H.PARAMETER),
        (struct.pack(">II", *POWER8) * (MAX_PAIRS + 1), H.PARAMETER),
    ],
)
def test_a_client_that_cannot_run_here_is_told_and_changes_nothing(data: bytes, code: H) -> None:
    client = Client()
    assert negotiate(client, data) == code
    assert client.read_property("/cpus/PowerPC,POWER8@0", "cpu-version") == cells(PVR_POWER8)
    assert len(client.store.revisions) == 1


def test_vectors_that_leave_memory_are_refused() -> None:
    client = Client()
    data = block(POWER8, LEVEL_2_07)
    assert negotiate(client, data, RAM_BYTES - len(data)) == H.SUCCESS
    assert negotiate(client, data[:-4], RAM_BYTES - len(data) + 4) == H.PARAMETER
    root = client.call("open", "/")
    assert client.call_all("call-method", "ibm,client-architecture-support", root, RAM_BYTES + 4, returns=2)[0] == -1


def test_an_option_vector_5_that_is_short_lacks_what_it_does_not_reach() -> None:
    vectors = parse(block(POWER8, options=(b"\0",) * 4 + (b"\0",)))
    assert agreed_vector_5(vectors)[1:] == bytes(26)


@given(st.binary(max_size=600))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    try:
        vectors = parse(data)
    except VectorError:
        return
    assert 1 <= len(vectors.options) <= 256
    assert sum(len(option) + 1 for option in vectors.options) + 8 * len(vectors.processors) + 1 <= len(data)


ROOM = 0x40000


def ask_for_firmware(client: Client, data: bytes, size: int = 1 << 16, buffer: int = BUFFER + ROOM) -> int:
    """H_CAS, as SLOF makes it; return r3."""
    client.poke(BUFFER, data)
    return asyncio.run(client.session.client_architecture_support(Call(0, (BUFFER, buffer, size))))


def test_a_firmware_of_the_guests_own_gets_the_platforms_tree_with_what_was_agreed() -> None:
    client = Client()
    assert client.call("setprop", client.find("/chosen"), "ours-only", BUFFER, 4) == 4
    assert ask_for_firmware(client, block(POWER8, LEVEL_2_07)) == H.SUCCESS
    answer = client.peek(BUFFER + ROOM, 1 << 16)
    assert answer[:4] == cells(1), "the version of the answer"
    tree = fdt.read(answer[4 : 4 + int.from_bytes(answer[8:12], "big")])
    cpus, chosen = tree.root.find("/cpus"), tree.root.find("/chosen")
    assert cpus is not None
    assert chosen is not None
    for cpu in cpus.children:
        assert cpu.properties["cpu-version"] == cells(ARCHITECTURE_2_07)
    assert len(chosen.properties["ibm,architecture-vec-5"]) == 27
    assert not {"stdin", "stdout", "ours-only"} & chosen.properties.keys(), "our client interface is not the guest's"
    assert all(name.startswith("ibm,") for name in chosen.properties), "the bootargs are those that a boot loader has put there"
    assert client.store.revisions[-1][0] == dt.TREE_ORIGIN_CAS
    stored = fdt.read(client.store.revisions[-1][1])
    kept = stored.root.find("/chosen")
    assert kept is not None
    assert kept.properties.keys() >= chosen.properties.keys()
    kept.properties = chosen.properties
    assert stored == tree


def test_without_room_for_the_tree_nothing_is_written() -> None:
    client = Client()
    assert ask_for_firmware(client, block(POWER8), size=100) == H.PARAMETER
    assert client.peek(BUFFER + ROOM, 100) == bytes(100)
    assert len(client.store.revisions) == 1


def test_h_cas_refuses_what_the_method_refuses() -> None:
    client = Client()
    assert ask_for_firmware(client, block(POWER9)) == H.HARDWARE
    assert ask_for_firmware(client, b"\0" * 20) == H.PARAMETER
    with pytest.raises(GuestAddressError):
        ask_for_firmware(client, block(POWER8), buffer=RAM_BYTES - 8)
    client.store.revisions.clear()
    assert ask_for_firmware(client, block(POWER8)) == H.HARDWARE
