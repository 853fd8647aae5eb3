# SPDX-License-Identifier: GPL-2.0-or-later
"""TCE hypercalls and the DMA window that they fill."""

from __future__ import annotations

import asyncio
import struct

import pytest

from splitvisor.backend import Handler, Result
from splitvisor.backend.vio import DeviceKind, VioDevice, VioSession
from splitvisor.backend.vio import tce_calls as tce
from splitvisor.backend.vio.dma import TCE_READ, TCE_WRITE, WINDOW_BYTES, WINDOW_PAGES, DmaError, DmaWindow
from splitvisor.declarations.guest_memory import GuestAddressError
from splitvisor.papr.codes import H, RtasStatus
from splitvisor.rpc import trap_pb2
from tests.fake_vm import FakeVm, make_call
from vio_service import session as bus
from vio_service.console.vm_consoles import VmConsoles
from vio_service.session import vio_session

LIOBN = 0x71000000
PAGE = 4096
LAST_PAGE = WINDOW_BYTES - PAGE
RW = TCE_READ | TCE_WRITE


class DmaDevice(VioDevice):
    kind = "dma-test"
    node_name = "dma"
    device_type = "test"
    compatible = "test,dma"
    has_dma = True


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> VioSession[VmConsoles]:
    monkeypatch.setitem(bus.KINDS, "dma-test", DeviceKind(DmaDevice))
    specs = [trap_pb2.DeviceSpec(kind="dma-test"), trap_pb2.DeviceSpec(kind="nvram", unit_address=0x71000001)]
    return vio_session(FakeVm(devices=specs))


def window(session: VioSession[VmConsoles]) -> DmaWindow:
    found = session.bus.devices[LIOBN].window
    assert found is not None
    return found


def ram(session: VioSession[VmConsoles]) -> bytearray:
    assert isinstance(session.vm, FakeVm)
    return session.vm.ram.data


def call(session: VioSession[VmConsoles], handler: Handler, *arguments: int) -> int:
    result, _ = make_call(session, handler, *arguments)
    return result.result if isinstance(result, Result) else result


def get(session: VioSession[VmConsoles], ioba: int) -> int:
    result, _ = make_call(session, tce.get_tce, LIOBN, ioba)
    assert isinstance(result, Result)
    assert result.result == H.SUCCESS
    return result.outputs[0]


def test_an_entry_that_was_put_is_read_back_for_any_address_of_its_page(session: VioSession[VmConsoles]) -> None:
    assert call(session, tce.put_tce, LIOBN, 0x5123, 0x9003) == H.SUCCESS
    assert get(session, 0x5FFF) == 0x9003
    assert get(session, 0x6000) == 0
    assert call(session, tce.put_tce, LIOBN, LAST_PAGE, (1 << 64) - 1) == H.SUCCESS
    assert get(session, LAST_PAGE) == (1 << 64) - 1


@pytest.mark.parametrize("ioba", [WINDOW_BYTES, 1 << 63, (1 << 64) - 1])
def test_an_address_beyond_the_window_is_a_bad_parameter(session: VioSession[VmConsoles], ioba: int) -> None:
    assert call(session, tce.put_tce, LIOBN, ioba, 3) == H.PARAMETER
    assert call(session, tce.get_tce, LIOBN, ioba) == H.PARAMETER
    assert call(session, tce.stuff_tce, LIOBN, ioba, 3, 1) == H.PARAMETER
    assert call(session, tce.put_tce_indirect, LIOBN, ioba, 0x1000, 1) == H.PARAMETER


@pytest.mark.parametrize("liobn", [0, 0x71000001, 0x71000002])
def test_a_liobn_without_a_window_is_a_bad_parameter(session: VioSession[VmConsoles], liobn: int) -> None:
    assert call(session, tce.put_tce, liobn, 0, 3) == H.PARAMETER
    assert call(session, tce.get_tce, liobn, 0) == H.PARAMETER
    assert call(session, tce.stuff_tce, liobn, 0, 3, 1) == H.PARAMETER
    assert call(session, tce.put_tce_indirect, liobn, 0, 0x1000, 1) == H.PARAMETER
    assert call(session, tce.set_tce_bypass, liobn, 1) == RtasStatus.PARAMETER_ERROR


def test_stuffing_sets_exactly_the_entries_asked_for(session: VioSession[VmConsoles]) -> None:
    first = 500 * PAGE
    assert call(session, tce.stuff_tce, LIOBN, first, 0x3003, 600) == H.SUCCESS
    assert [get(session, first + page * PAGE) for page in (-1, 0, 11, 12, 599, 600)] == [0, 0x3003, 0x3003, 0x3003, 0x3003, 0]
    assert call(session, tce.stuff_tce, LIOBN, first + PAGE, 0, 598) == H.SUCCESS
    assert [get(session, first + page * PAGE) for page in (0, 1, 598, 599)] == [0x3003, 0, 0, 0x3003]


def test_clearing_a_whole_window_frees_its_storage(session: VioSession[VmConsoles]) -> None:
    assert call(session, tce.stuff_tce, LIOBN, 0, 0x1003, WINDOW_PAGES) == H.SUCCESS
    assert window(session).table.stored_bytes == WINDOW_PAGES * 8
    assert get(session, LAST_PAGE) == 0x1003
    assert call(session, tce.stuff_tce, LIOBN, 0, 0, WINDOW_PAGES) == H.SUCCESS
    assert window(session).table.stored_bytes == 0
    assert get(session, LAST_PAGE) == 0


@pytest.mark.parametrize("count", [0, WINDOW_PAGES + 1, (1 << 64) - 1])
def test_stuffing_none_or_more_than_a_window_is_a_bad_parameter(session: VioSession[VmConsoles], count: int) -> None:
    assert call(session, tce.stuff_tce, LIOBN, 0, 3, count) == H.PARAMETER
    assert get(session, 0) == 0


def test_entries_before_the_end_of_the_window_stay_when_a_range_leaves_it(session: VioSession[VmConsoles]) -> None:
    ram(session)[0x1000:0x1010] = struct.pack(">2Q", 0x7003, 0x8003)
    assert call(session, tce.stuff_tce, LIOBN, LAST_PAGE, 0x5003, 2) == H.PARAMETER
    assert get(session, LAST_PAGE) == 0x5003
    assert call(session, tce.put_tce_indirect, LIOBN, LAST_PAGE, 0x1000, 2) == H.PARAMETER
    assert get(session, LAST_PAGE) == 0x7003


def test_an_indirect_list_is_taken_from_guest_memory(session: VioSession[VmConsoles]) -> None:
    entries = [0x10003 + page * PAGE for page in range(512)]
    ram(session)[0x2000:0x3000] = struct.pack(">512Q", *entries)
    assert call(session, tce.put_tce_indirect, LIOBN, 0x7000, 0xC000_0000_0000_2000, 512) == H.SUCCESS
    assert [get(session, 0x7000 + page * PAGE) for page in range(512)] == entries


@pytest.mark.parametrize(("address", "count"), [(0x1008, 1), (0x1000, 0), (0x1000, 513), (0x1000, 1 << 60)])
def test_a_bad_indirect_list_is_a_bad_parameter(session: VioSession[VmConsoles], address: int, count: int) -> None:
    assert call(session, tce.put_tce_indirect, LIOBN, 0, address, count) == H.PARAMETER


def test_an_indirect_list_outside_ram_sets_nothing(session: VioSession[VmConsoles]) -> None:
    with pytest.raises(GuestAddressError):
        call(session, tce.put_tce_indirect, LIOBN, 0, 1 << 40, 1)
    assert get(session, 0) == 0


def test_a_device_reads_and_writes_through_pages_in_any_order(session: VioSession[VmConsoles]) -> None:
    dma = window(session)
    ram(session)[0x3FFE:0x4000] = b"he"
    ram(session)[0x9000:0x9003] = b"llo"
    dma.table[0] = 0x3000 | RW
    dma.table[1] = 0x9000 | RW
    assert asyncio.run(dma.read(PAGE - 2, 5)) == b"hello"
    asyncio.run(dma.write(PAGE - 2, b"HELLO"))
    assert ram(session)[0x3FFE:0x4000] + ram(session)[0x9000:0x9003] == b"HELLO"


def test_a_page_without_the_permission_stops_the_whole_access(session: VioSession[VmConsoles]) -> None:
    dma = window(session)
    dma.table[0] = 0x3000 | RW
    dma.table[1] = 0x4000 | TCE_READ
    assert asyncio.run(dma.read(0, 2 * PAGE)) == bytes(2 * PAGE)
    with pytest.raises(DmaError, match="does not grant 0x2"):
        asyncio.run(dma.write(0, b"x" * 2 * PAGE))
    assert not any(ram(session)[0x3000:0x4000]), "the permitted page was not written either"
    dma.table[1] = 0x4000 | TCE_WRITE
    with pytest.raises(DmaError, match="does not grant 0x1"):
        asyncio.run(dma.read(0, PAGE + 1))


@pytest.mark.parametrize(("ioba", "length"), [(LAST_PAGE, PAGE + 1), (WINDOW_BYTES, 1), (-1, 1), (0, -1)])
def test_an_access_outside_the_window_faults(session: VioSession[VmConsoles], ioba: int, length: int) -> None:
    call(session, tce.stuff_tce, LIOBN, 0, 0x3000 | RW, WINDOW_PAGES)
    with pytest.raises(DmaError, match="not in the DMA window"):
        window(session).check(ioba, length, TCE_READ)


def test_a_page_that_is_not_ram_faults(session: VioSession[VmConsoles]) -> None:
    dma = window(session)
    dma.table[0] = 1 << 50 | RW
    with pytest.raises(DmaError, match="not in guest RAM"):
        asyncio.run(dma.read(0, 1))


def test_bypass_uses_guest_physical_addresses_until_it_is_turned_off(session: VioSession[VmConsoles]) -> None:
    dma = window(session)
    ram(session)[0x5000:0x5002] = b"ok"
    assert call(session, tce.set_tce_bypass, LIOBN, 1) == RtasStatus.SUCCESS
    assert asyncio.run(dma.read(0x5000, 2)) == b"ok"
    with pytest.raises(DmaError, match="not in guest RAM"):
        asyncio.run(dma.read(len(ram(session)) - 1, 2))
    assert call(session, tce.set_tce_bypass, LIOBN, 0) == RtasStatus.SUCCESS
    with pytest.raises(DmaError):
        asyncio.run(dma.read(0x5000, 2))
