# SPDX-License-Identifier: GPL-2.0-or-later
"""SPLITVISOR_H_BLOCK's arguments and answers: what is wrong is refused before anything is done with it."""

from __future__ import annotations

import pytest

from splitvisor.papr.block_access import MAX_TRANSFER, BlockOperation, BlockRequest, BlockUnit

RAM = 64 << 20
LUN = 0x8100_0000_0000_0000


@pytest.mark.parametrize("operation", BlockOperation)
def test_a_request_is_what_its_arguments_say(operation: BlockOperation) -> None:
    request = BlockRequest(0x7100_0002, operation, LUN, 0x1_0000_0000, 0x10000, 0x200)
    assert BlockRequest.parse(request.arguments(), RAM) == request


def test_the_upper_half_of_a_unit_address_is_ignored() -> None:
    request = BlockRequest.parse((0xFFFF_FFFF_7100_0002, 2, LUN, 0, 0, 0), RAM)
    assert request is not None
    assert request.unit_address == 0x7100_0002


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (1, 0, LUN, 0, 0),
        (1, 4, LUN, 0, 0, 512),
        (1, 1 << 63, LUN, 0, 0, 512),
        (1, 0, LUN, 0, RAM, 512),
        (1, 0, LUN, 0, RAM - 511, 512),
        (1, 1, LUN, 0, 1 << 63, 512),
        (1, 0, LUN, 0, 0, MAX_TRANSFER + 1),
        (1, 3, LUN, 0, RAM - 7, 8),
    ],
)
def test_what_cannot_be_is_no_request(arguments: tuple[int, ...]) -> None:
    assert BlockRequest.parse(arguments, RAM) is None


def test_describe_needs_no_memory() -> None:
    assert BlockRequest.parse((1, 2, LUN, 0, 1 << 63, 1 << 40), RAM) is not None


def test_a_unit_is_what_its_registers_say() -> None:
    unit = BlockUnit(2048, 1000, 5, 128 << 10, read_only=True)
    assert BlockUnit.parse(unit.outputs()) == unit
    assert unit.size == 2_048_000


@pytest.mark.parametrize(
    "outputs",
    [
        (),
        (512, 10, 0, 512),
        (0, 10, 0, 512, 0),
        (513, 10, 0, 1024, 0),
        (256, 10, 0, 512, 0),
        (8192, 10, 0, 8192, 0),
        (512, 1 << 63, 0, 512, 0),
        (4096, 10, 0, 512, 0),
        (512, 10, 0x20, 512, 0),
    ],
)
def test_a_unit_that_cannot_be_is_none(outputs: tuple[int, ...]) -> None:
    assert BlockUnit.parse(outputs) is None


def test_the_largest_transfer_is_whole_blocks_and_no_more_than_a_call_moves() -> None:
    unit = BlockUnit.parse((4096, 10, 0, 1 << 40, 0))
    assert unit is not None
    assert unit.max_transfer == MAX_TRANSFER
    unit = BlockUnit.parse((4096, 10, 0, 10_000, 0))
    assert unit is not None
    assert unit.max_transfer == 8192
