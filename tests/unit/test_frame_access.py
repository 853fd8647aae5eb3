# SPDX-License-Identifier: GPL-2.0-or-later
"""SPLITVISOR_H_FRAME's arguments: what is wrong is refused before anything is done with it."""

from __future__ import annotations

import pytest

from splitvisor.papr.frame_access import MAX_WAIT_MS, FrameOperation, FrameRequest

RAM = 64 << 20


@pytest.mark.parametrize("operation", FrameOperation)
def test_a_request_is_what_its_arguments_say(operation: FrameOperation) -> None:
    request = FrameRequest(0x7100_0002, operation, 0x4000, 1514, 0x4800, 1518, 20)
    assert FrameRequest.parse(request.arguments(), RAM) == request


def test_the_upper_half_of_a_unit_address_is_ignored_and_a_wait_is_bounded() -> None:
    request = FrameRequest.parse((0xFFFF_FFFF_7100_0002, 0, 0, 0, 0, 64, 1 << 63), RAM)
    assert request is not None
    assert (request.unit_address, request.wait_ms) == (0x7100_0002, MAX_WAIT_MS)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (1, 0, 0, 0, 0, 0),
        (1, 2, 0, 0, 0, 0, 0),
        (1, 1 << 63, 0, 0, 0, 0, 0),
        (1, 0, 0, 13, 0, 0, 0),
        (1, 0, 0, 1519, 0, 0, 0),
        (1, 0, RAM - 59, 60, 0, 0, 0),
        (1, 0, 1 << 63, 60, 0, 0, 0),
        (1, 0, 0, 0, RAM - 59, 60, 0),
        (1, 0, 0, 0, 1 << 63, 1, 0),
        (1, 0, 0, 0, 0, 1 << 63, 0),
    ],
)
def test_what_cannot_be_is_no_request(arguments: tuple[int, ...]) -> None:
    assert FrameRequest.parse(arguments, RAM) is None


def test_addresses_of_nothing_do_not_matter() -> None:
    assert FrameRequest.parse((1, 0, 1 << 63, 0, 1 << 63, 0, 0), RAM) is not None
    assert FrameRequest.parse((1, 1, 1 << 63, 99, 1 << 63, 99, 0), RAM) is not None
