# SPDX-License-Identifier: GPL-2.0-or-later
"""Which back end may fill which slots of the VIO bus."""

from __future__ import annotations

import pytest

from cpu_service.machine.placement import PlacementError, vio_slots
from splitvisor.papr.vio import SLOTS
from splitvisor.rpc import machine_pb2 as mpb


def shares(*further: int) -> dict[str, range]:
    """The slots of vio_service and of back ends that ask for numbers of them."""
    names = [("vio_service", 0), *((f"b{number}", count) for number, count in enumerate(further))]
    slots = vio_slots([mpb.BackendAddress(name=name, vio_slots=count) for name, count in names])
    return {name: range(each.first, each.first + each.count) for name, each in slots.items()}


@pytest.mark.parametrize("further", [(), (0,), (8,), (1, 2, 3), (SLOTS - 1,), (40, 23), (0,) * 16])
def test_each_slot_is_one_back_ends(further: tuple[int, ...]) -> None:
    slots = [slot for each in shares(*further).values() for slot in each]
    assert sorted(slots) == list(range(SLOTS))


@pytest.mark.parametrize("further", [(), (8,), (SLOTS - 1,), (0,) * 16])
def test_the_first_slot_is_vio_services(further: tuple[int, ...]) -> None:
    """Calls that name no device, such as those for NVRAM, are made to the back end that has it."""
    assert shares(*further)["vio_service"].start == 0
    assert len(shares(*further)["vio_service"]) >= 1


@pytest.mark.parametrize("further", [(SLOTS,), (40, 24), (SLOTS + 1,)])
def test_nobody_can_take_them_all(further: tuple[int, ...]) -> None:
    with pytest.raises(PlacementError, match="VIO slots are too many"):
        shares(*further)
