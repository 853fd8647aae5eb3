# SPDX-License-Identifier: GPL-2.0-or-later
"""RAM by hypercall: the right bytes, in RAM only."""

from __future__ import annotations

import random

import pytest

from cpu_service.hypercalls.logical_memory import MEMOP_CHUNK, LogicalMemory
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from tests.fake_machine import FakeVcpu, hypercall, make_ram

RAM = 4 << 20
LOADS = [Hcall.H_LOGICAL_CI_LOAD, Hcall.H_LOGICAL_CACHE_LOAD]
STORES = [Hcall.H_LOGICAL_CI_STORE, Hcall.H_LOGICAL_CACHE_STORE]
ZERO, COPY = 1 << 15, 1 << 14
COPY_OP, INVERT_OP = 0, 1


class Machine:
    def __init__(self) -> None:
        self.ram = make_ram(RAM)
        self.written: list[tuple[int, int]] = []
        self.ram.on_write = lambda address, length: self.written.append((address, length))
        self.vcpu = FakeVcpu()

    def call(self, token: int, *arguments: int) -> int:
        return hypercall(LogicalMemory(self.ram).calls(), token, self.vcpu, *arguments)


@pytest.mark.parametrize("token", LOADS)
def test_load_returns_the_big_endian_value(token: int) -> None:
    machine = Machine()
    machine.ram.write(0x100, bytes(range(0x81, 0x89)))
    for size, value in ((1, 0x81), (2, 0x8182), (4, 0x8182_8384), (8, 0x8182_8384_8586_8788)):
        assert machine.call(token, size, 0x100) == H.SUCCESS
        assert machine.vcpu.gpr[4] == value


@pytest.mark.parametrize("token", STORES)
def test_store_writes_as_many_low_bytes_as_asked(token: int) -> None:
    for size, stored in ((1, "88"), (2, "8788"), (4, "85868788"), (8, "8182838485868788")):
        machine = Machine()
        assert machine.call(token, size, 0x100, 0x8182_8384_8586_8788) == H.SUCCESS
        assert machine.ram.read(0x100, 9) == bytes.fromhex(stored).ljust(9, b"\0")
        assert machine.written == [(0x100, size)]


@pytest.mark.parametrize("token", LOADS + STORES)
@pytest.mark.parametrize(("size", "address"), [(0, 0), (3, 0), (16, 0), (1 << 63, 0), (1, RAM), (8, RAM - 7), (8, (1 << 64) - 8)])
def test_a_bad_size_or_address_is_a_parameter_error(token: int, size: int, address: int) -> None:
    machine = Machine()
    assert machine.call(token, size, address, 1) == H.PARAMETER
    assert machine.written == []


@pytest.mark.parametrize("token", [Hcall.H_LOGICAL_ICBI, Hcall.H_LOGICAL_DCBF])
def test_cache_operations_succeed(token: int) -> None:
    assert Machine().call(token, 0, 0x1000) == H.SUCCESS


def test_page_init_clears_or_copies_one_page() -> None:
    machine = Machine()
    page = random.Random(1).randbytes(0x1000)
    machine.ram.write(0x2000, page)
    assert machine.call(Hcall.H_PAGE_INIT, COPY | 1 << 22 | 1 << 23, 0x5000, 0x2000) == H.SUCCESS
    assert machine.ram.read(0x4FFF, 0x1002) == b"\0" + page + b"\0"
    assert machine.call(Hcall.H_PAGE_INIT, ZERO, 0x5000, 0xBAD) == H.SUCCESS
    assert machine.ram.read(0x5000, 0x1000) == bytes(0x1000)
    assert machine.ram.read(0x2000, 0x1000) == page
    assert machine.call(Hcall.H_PAGE_INIT, 1 << 22, 0x2000, 0) == H.SUCCESS
    assert machine.ram.read(0x2000, 0x1000) == page


@pytest.mark.parametrize(
    "arguments",
    [(ZERO, 0x800, 0), (ZERO, RAM, 0), (COPY, 0x1000, 0x800), (COPY, 0x1000, RAM), (ZERO | 1, 0x1000, 0), (ZERO, 1 << 63, 0)],
)
def test_page_init_checks_flags_alignment_and_range(arguments: tuple[int, int, int]) -> None:
    machine = Machine()
    assert machine.call(Hcall.H_PAGE_INIT, *arguments) == H.PARAMETER
    assert machine.written == []


@pytest.mark.parametrize("shift", range(4))
@pytest.mark.parametrize("operation", [COPY_OP, INVERT_OP])
@pytest.mark.parametrize(
    ("destination", "source"),
    [
        pytest.param(0x20_0000, 0x1000, id="apart"),
        pytest.param(0x1008, 0x1000, id="overlapping upwards"),
        pytest.param(0x1000, 0x1008, id="overlapping downwards"),
        pytest.param(0x1000, 0x1000, id="in place"),
    ],
)
def test_memop_moves_and_inverts_more_than_a_chunk(shift: int, operation: int, destination: int, source: int) -> None:
    machine = Machine()
    data = random.Random(shift).randbytes(MEMOP_CHUNK + 0x1238)
    machine.ram.write(source, data)
    assert machine.call(Hcall.H_LOGICAL_MEMOP, destination, source, shift, len(data) >> shift, operation) == H.SUCCESS
    expected = data if operation == COPY_OP else bytes(~byte & 0xFF for byte in data)
    assert machine.ram.read(destination, len(data)) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((0, 8, 4, 1, 0), id="element of 16 bytes"),
        pytest.param((0, 8, 0, 0x8000_0001, 0), id="too many"),
        pytest.param((0, 8, 0, 1, 2), id="unknown operation"),
        pytest.param((4, 8, 3, 1, 0), id="destination not aligned"),
        pytest.param((8, 4, 3, 1, 0), id="source not aligned"),
        pytest.param((RAM - 8, 0, 3, 2, 0), id="destination leaves RAM"),
        pytest.param((0, RAM - 8, 3, 2, 0), id="source leaves RAM"),
        pytest.param((0, 8, 3, 0x8000_0000, 0), id="more than RAM"),
        pytest.param(((1 << 64) - 8, 0, 3, 1, 0), id="end of the address space"),
    ],
)
def test_memop_checks_before_it_writes(arguments: tuple[int, ...]) -> None:
    machine = Machine()
    assert machine.call(Hcall.H_LOGICAL_MEMOP, *arguments) == H.PARAMETER
    assert machine.written == []
