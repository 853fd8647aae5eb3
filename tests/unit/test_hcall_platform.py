# SPDX-License-Identifier: GPL-2.0-or-later
"""H_GET_CPU_CHARACTERISTICS, H_HOME_NODE_ASSOCIATIVITY and H_RANDOM."""

import pytest

from hcall_service.platform.hypercalls import PLATFORM_CALLS
from splitvisor.backend import Hypercall, Result, Session
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from tests.fake_vm import FakeVm, make_call

CALLS: dict[int, Hypercall] = {call.token: call for call in PLATFORM_CALLS}


def hypercall(token: Hcall, *arguments: int, vcpus: int = 1) -> tuple[int, list[int]]:
    declared = CALLS[token]
    assert declared.arguments == len(arguments)
    answer, _ = make_call(Session(FakeVm(vcpus=vcpus)), declared.handler, *arguments)
    return (answer.result, list(answer.outputs)) if isinstance(answer, Result) else (answer, [])


def test_the_processor_leaks_nothing_so_that_linux_need_not_flush() -> None:
    result, (character, behaviour) = hypercall(Hcall.H_GET_CPU_CHARACTERISTICS)
    assert result == H.SUCCESS
    assert character == 0x0400_0000_0000_0000
    assert behaviour == 0x81C0_0000_0000_0000


def test_a_processors_home_is_node_0_and_its_own_number_the_last_domain() -> None:
    result, registers = hypercall(Hcall.H_HOME_NODE_ASSOCIATIVITY, 1, 3, vcpus=4)
    assert result == H.SUCCESS
    unused = 0xFFFF_FFFF_FFFF_FFFF
    assert registers == [0, 0, 0x0000_0003_FFFF_FFFF, unused, unused, unused]


@pytest.mark.parametrize(
    ("flags", "processor", "result"),
    [(0, 0, H.FUNCTION), (2, 0, H.FUNCTION), (1 << 63, 0, H.FUNCTION), (1, 4, H.P2), (1, (1 << 64) - 1, H.P2)],
)
def test_associativity_of_anything_else_is_refused(flags: int, processor: int, result: H) -> None:
    assert hypercall(Hcall.H_HOME_NODE_ASSOCIATIVITY, flags, processor, vcpus=4) == (result, [])


def test_random_numbers_differ_and_fill_64_bits() -> None:
    numbers = [hypercall(Hcall.H_RANDOM)[1][0] for _ in range(64)]
    assert len(set(numbers)) == 64
    combined = 0
    for number in numbers:
        assert 0 <= number < 1 << 64
        combined |= number
    assert combined == (1 << 64) - 1
