# SPDX-License-Identifier: GPL-2.0-or-later
"""Transports: TCEs, signals and queues as a guest's calls and a back end's messages change them."""

from __future__ import annotations

import itertools
import mmap
import struct
from collections.abc import Sequence
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpu_service.hypercalls.declarations import ANOTHERS, ANOTHERS_RTAS
from cpu_service.link.events import LinkStatus
from cpu_service.transports import transports as module
from cpu_service.transports.calls import TransportCalls
from cpu_service.transports.queue import MAX_HELD, TRANSPORT_EVENT
from cpu_service.transports.transports import TransportError, Transports
from cpu_service.vcpus.vcpu import Vcpu
from splitvisor.declarations.dma import PAGE_BYTES, WINDOW_BYTES, DmaError, Piece
from splitvisor.papr.codes import H, RtasStatus
from splitvisor.papr.hcall import Hcall
from splitvisor.rpc import state_pb2 as spb
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.tce_file import FILE_BYTES, TCE_READ, TCE_WRITE, WINDOW_PAGES, TceTables, TceWindow
from tests.fake_machine import FakeVcpu, hypercall, make_ram, rtas

UNIT, PLAIN = 0x7100_0002, 0x7100_0003
SOURCE = 0x1102
RW = TCE_READ | TCE_WRITE
LAST_PAGE = WINDOW_BYTES - PAGE_BYTES
QUEUE, QUEUE_IOBA = 0x8000, 0x40000
COMMAND = bytes((0x80, 1)) + bytes(14)


class FakeOffer:
    def __init__(self) -> None:
        self.transports: Sequence[pb.Transport] = ()
        self.routes: Sequence[pb.Route] = ()


class FakeLink:
    """A link as transports see it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.attached = True
        self.offer = FakeOffer()

    def offers(self, *transports: pb.Transport) -> LinkStatus:
        self.offer.transports = transports
        return cast("LinkStatus", self)


def with_queue(unit: int = UNIT, *, queue_open: bool = False) -> pb.Transport:
    return pb.Transport(
        unit_address=unit,
        interrupt_source=SOURCE,
        signal_mask=1,
        window_bytes=WINDOW_BYTES,
        has_queue=True,
        queue_open=queue_open,
    )


PLAIN_DEVICE = pb.Transport(unit_address=PLAIN, interrupt_source=SOURCE + 1)


class Machine:
    def __init__(
        self, saved: Sequence[spb.SavedTransport] = (), tables: TceTables | None = None, *, queue_open: bool = False
    ) -> None:
        self.ram = make_ram()
        self.tables = tables or TceTables(mmap.mmap(-1, FILE_BYTES))
        self.pulses: list[int] = []
        self.written: list[tuple[int, int]] = []
        self.transports = Transports(
            self.ram, self.tables, lambda *where: self.written.append(where), self.pulses.append, lambda: None, saved
        )
        self.table = TransportCalls(self.transports, self.ram)
        self.calls = self.table.calls()
        self.vcpu = cast("Vcpu", FakeVcpu())
        self.forwarded: list[int] = []
        self.device_answers = H.SUCCESS
        self.table.forward = self._forward
        self.link = FakeLink("disks")
        self.transports.take(self.link.offers(with_queue(queue_open=queue_open), PLAIN_DEVICE), attached_anew=True)

    def _forward(self, token: int) -> int:
        self.forwarded.append(token)
        return self.device_answers

    def call(self, token: int, *arguments: int) -> int:
        return hypercall(self.calls, token, self.vcpu, *arguments)

    def rtas(self, name: str, *arguments: int) -> tuple[int, ...]:
        return rtas(self.calls, name, self.vcpu, *arguments)

    def get(self, ioba: int) -> int:
        assert self.call(Hcall.H_GET_TCE, UNIT, ioba) == H.SUCCESS
        return self.vcpu.gpr[4]

    @property
    def window(self) -> TceWindow:
        found = self.transports.window(cast("LinkStatus", self.link), UNIT)
        assert found is not None
        return found

    def register(self, size: int = PAGE_BYTES) -> None:
        """Map a queue and register it, with its signal on."""
        for page in range(size // PAGE_BYTES):
            self.window[(QUEUE_IOBA // PAGE_BYTES) + page] = QUEUE + page * PAGE_BYTES | RW
        assert self.call(Hcall.H_REG_CRQ, UNIT, QUEUE_IOBA, size) == H.SUCCESS
        assert self.call(Hcall.H_VIO_SIGNAL, UNIT, 1) == H.SUCCESS

    def put(self, *entries: bytes, position: int) -> None:
        put = pb.CrqEntries(unit_address=UNIT, entries=b"".join(entries), position=position)
        self.transports.put(cast("LinkStatus", self.link), put)

    def slot(self, number: int) -> bytes:
        return self.ram.read(QUEUE + 16 * number, 16)


@pytest.fixture
def machine() -> Machine:
    return Machine()


# TCEs.


def test_an_entry_that_was_put_is_read_back_for_any_address_of_its_page(machine: Machine) -> None:
    assert machine.call(Hcall.H_PUT_TCE, UNIT | 5 << 40, 0x5123, 0x9003) == H.SUCCESS
    assert (machine.get(0x5FFF), machine.get(0x6000)) == (0x9003, 0)
    assert machine.call(Hcall.H_PUT_TCE, UNIT, LAST_PAGE, (1 << 64) - 1) == H.SUCCESS
    assert machine.get(LAST_PAGE) == (1 << 64) - 1


@pytest.mark.parametrize("ioba", [WINDOW_BYTES, 1 << 63, (1 << 64) - 1])
def test_an_address_beyond_the_window_is_a_bad_parameter(machine: Machine, ioba: int) -> None:
    for token, *rest in (
        (Hcall.H_PUT_TCE, 3),
        (Hcall.H_GET_TCE,),
        (Hcall.H_STUFF_TCE, 3, 1),
        (Hcall.H_PUT_TCE_INDIRECT, 0x1000, 1),
    ):
        assert machine.call(token, UNIT, ioba, *rest) == H.PARAMETER


def test_a_device_without_a_window_refuses_and_an_unknown_one_is_anothers(machine: Machine) -> None:
    for token, *rest in ((Hcall.H_PUT_TCE, 0, 3), (Hcall.H_GET_TCE, 0), (Hcall.H_STUFF_TCE, 0, 3, 1)):
        assert machine.call(token, PLAIN, *rest) == H.PARAMETER
        assert machine.call(token, 0x7100_0009, *rest) == ANOTHERS
    assert machine.rtas("ibm,set-tce-bypass", PLAIN, 1) == (RtasStatus.PARAMETER_ERROR,)
    assert machine.rtas("ibm,set-tce-bypass", 7, 1) == ANOTHERS_RTAS
    assert machine.call(Hcall.H_REG_CRQ, PLAIN, 0, 4096) == H.NOT_FOUND
    assert machine.call(Hcall.H_SEND_CRQ, 7, 0, 0) == ANOTHERS


def test_stuffing_sets_exactly_the_entries_asked_for(machine: Machine) -> None:
    first = 500 * PAGE_BYTES
    assert machine.call(Hcall.H_STUFF_TCE, UNIT, first, 0x3003, 600) == H.SUCCESS
    found = [machine.get(first + page * PAGE_BYTES) for page in (-1, 0, 11, 12, 599, 600)]
    assert found == [0, 0x3003, 0x3003, 0x3003, 0x3003, 0]
    assert machine.call(Hcall.H_STUFF_TCE, UNIT, first + PAGE_BYTES, 0, 598) == H.SUCCESS
    assert [machine.get(first + page * PAGE_BYTES) for page in (0, 1, 598, 599)] == [0x3003, 0, 0, 0x3003]
    assert machine.call(Hcall.H_STUFF_TCE, UNIT, 0, 0, WINDOW_PAGES) == H.SUCCESS
    assert machine.get(first) == machine.get(LAST_PAGE) == 0


@pytest.mark.parametrize("count", [0, WINDOW_PAGES + 1, (1 << 64) - 1])
def test_stuffing_none_or_more_than_a_window_is_a_bad_parameter(machine: Machine, count: int) -> None:
    assert machine.call(Hcall.H_STUFF_TCE, UNIT, 0, 3, count) == H.PARAMETER
    assert machine.get(0) == 0


def test_entries_before_the_end_of_the_window_stay_when_a_range_leaves_it(machine: Machine) -> None:
    machine.ram.write(0x1000, struct.pack(">2Q", 0x7003, 0x8003))
    assert machine.call(Hcall.H_STUFF_TCE, UNIT, LAST_PAGE, 0x5003, 2) == H.PARAMETER
    assert machine.get(LAST_PAGE) == 0x5003
    assert machine.call(Hcall.H_PUT_TCE_INDIRECT, UNIT, LAST_PAGE, 0x1000, 2) == H.PARAMETER
    assert machine.get(LAST_PAGE) == 0x7003


def test_an_indirect_list_is_taken_from_guest_memory(machine: Machine) -> None:
    entries = [0x10003 + page * PAGE_BYTES for page in range(512)]
    machine.ram.write(0x2000, struct.pack(">512Q", *entries))
    assert machine.call(Hcall.H_PUT_TCE_INDIRECT, UNIT, 0x7000, 0xC000_0000_0000_2000, 512) == H.SUCCESS
    assert [machine.get(0x7000 + page * PAGE_BYTES) for page in range(512)] == entries


@pytest.mark.parametrize(("address", "count"), [(0x1008, 1), (0x1000, 0), (0x1000, 513), (0x1000, 1 << 60), (1 << 40, 1)])
def test_a_bad_indirect_list_is_a_bad_parameter(machine: Machine, address: int, count: int) -> None:
    assert machine.call(Hcall.H_PUT_TCE_INDIRECT, UNIT, 0, address, count) == H.PARAMETER
    assert machine.get(0) == 0


def test_ranges_go_through_pages_in_any_order_and_adjacent_ones_are_one(machine: Machine) -> None:
    window, size = machine.window, machine.ram.size
    for page, address in enumerate((0x3000, 0x9000, 0xA000)):
        window[page] = address | RW
    assert window.ranges((Piece(PAGE_BYTES - 2, 5),), RW, size) == [(0x3FFE, 2), (0x9000, 3)]
    assert window.ranges((Piece(PAGE_BYTES, 2 * PAGE_BYTES), Piece(0, 1)), RW, size) == [(0x9000, 2 * PAGE_BYTES), (0x3000, 1)]
    assert window.ranges((Piece(5, 0),), RW, size) == []


def test_a_page_without_the_permission_stops_the_whole_access(machine: Machine) -> None:
    window, size = machine.window, machine.ram.size
    window[0], window[1] = 0x3000 | RW, 0x4000 | TCE_READ
    assert window.ranges((Piece(0, 2 * PAGE_BYTES),), TCE_READ, size)
    with pytest.raises(DmaError, match="does not grant 0x2"):
        window.ranges((Piece(0, 2 * PAGE_BYTES),), TCE_WRITE, size)
    with pytest.raises(DmaError, match="does not grant 0x1"):
        window.ranges((Piece(2 * PAGE_BYTES, 1),), TCE_READ, size)


@pytest.mark.parametrize(("ioba", "length"), [(LAST_PAGE, PAGE_BYTES + 1), (WINDOW_BYTES, 1), (-1, 1), (0, -1)])
def test_an_access_outside_the_window_or_ram_faults(machine: Machine, ioba: int, length: int) -> None:
    machine.call(Hcall.H_STUFF_TCE, UNIT, 0, 0x3000 | RW, WINDOW_PAGES)
    with pytest.raises(DmaError, match="not in the DMA window"):
        machine.window.ranges((Piece(ioba, length),), TCE_READ, machine.ram.size)
    machine.window[0] = 1 << 50 | RW
    with pytest.raises(DmaError, match="not in guest RAM"):
        machine.window.ranges((Piece(0, 1),), TCE_READ, machine.ram.size)


def test_bypass_uses_guest_physical_addresses_until_it_is_turned_off(machine: Machine) -> None:
    window, size = machine.window, machine.ram.size
    assert machine.rtas("ibm,set-tce-bypass", UNIT, 1) == (RtasStatus.SUCCESS,)
    assert window.ranges((Piece(0x5000, 2),), RW, size) == [(0x5000, 2)]
    for piece in (Piece(size - 1, 2), Piece(-1, 1), Piece(0, -1)):
        with pytest.raises(DmaError):
            window.ranges((piece,), RW, size)
    assert machine.rtas("ibm,set-tce-bypass", UNIT, 0) == (RtasStatus.SUCCESS,)
    with pytest.raises(DmaError):
        window.ranges((Piece(0x5000, 2),), RW, size)


# Signals.


def test_an_interrupt_reaches_the_guest_while_the_signal_is_on(machine: Machine) -> None:
    assert not machine.transports.interrupts(SOURCE)
    assert machine.call(Hcall.H_VIO_SIGNAL, UNIT, 1) == H.SUCCESS
    assert machine.transports.interrupts(SOURCE)
    assert machine.call(Hcall.H_VIO_SIGNAL, UNIT, 2) == H.PARAMETER
    assert machine.call(Hcall.H_VIO_SIGNAL, UNIT, 0) == H.SUCCESS
    assert not machine.transports.interrupts(SOURCE)
    assert machine.transports.interrupts(SOURCE + 1), "its device has a signal that cannot be turned off"
    assert machine.transports.interrupts(0x1FFF), "a source without a device with a transport"
    assert machine.call(Hcall.H_VIO_SIGNAL, PLAIN, 1) == H.PARAMETER


# Queues.


def test_entries_go_round_the_queue_as_the_guest_takes_them(machine: Machine) -> None:
    machine.register()
    entries = [bytes((0x80, number % 256)) + number.to_bytes(14, "big") for number in range(600)]
    for number, entry in enumerate(entries):
        machine.put(entry, position=number)
        assert machine.slot(number % 256) == entry
        machine.ram.write(QUEUE + 16 * (number % 256), b"\0")
    assert machine.pulses == [SOURCE] * 600
    assert machine.written[0] == (QUEUE, 16)


@pytest.mark.parametrize(
    ("ioba", "size"), [(QUEUE_IOBA + 16, 4096), (QUEUE_IOBA, 0), (QUEUE_IOBA, 4095), (QUEUE_IOBA, 16), (0, WINDOW_BYTES + 4096)]
)
def test_a_queue_is_whole_pages(machine: Machine, ioba: int, size: int) -> None:
    assert machine.call(Hcall.H_REG_CRQ, UNIT, ioba, size) == H.PARAMETER
    assert machine.forwarded == []


def test_a_queue_that_is_registered_is_not_registered_again(machine: Machine) -> None:
    machine.register(65536)
    assert machine.call(Hcall.H_REG_CRQ, UNIT, QUEUE_IOBA, 4096) == H.RESOURCE
    assert machine.call(Hcall.H_FREE_CRQ, UNIT) == H.SUCCESS
    assert machine.call(Hcall.H_FREE_CRQ, UNIT) == H.SUCCESS
    assert machine.forwarded == [Hcall.H_REG_CRQ, Hcall.H_FREE_CRQ]
    machine.put(COMMAND, position=0)
    assert machine.slot(0) == bytes(16), "without a queue entries are dropped"
    machine.register()


@pytest.mark.parametrize("answer", [H.BUSY, H.LONG_BUSY_100_MSEC])
def test_a_queue_that_its_device_does_not_let_go_of_yet_stays_registered(machine: Machine, answer: H) -> None:
    machine.register()
    machine.device_answers = answer
    assert machine.call(Hcall.H_FREE_CRQ, UNIT) == answer
    assert machine.call(Hcall.H_REG_CRQ, UNIT, QUEUE_IOBA, PAGE_BYTES) == H.RESOURCE
    machine.device_answers = H.SUCCESS
    assert machine.call(Hcall.H_FREE_CRQ, UNIT) == H.SUCCESS
    machine.register()


def test_a_queue_that_the_device_refuses_is_not_registered(machine: Machine) -> None:
    machine.device_answers = H.HARDWARE
    assert machine.call(Hcall.H_REG_CRQ, UNIT, QUEUE_IOBA, 4096) == H.HARDWARE
    machine.device_answers = H.CLOSED
    assert machine.call(Hcall.H_REG_CRQ, UNIT, QUEUE_IOBA, 4096) == H.CLOSED
    assert machine.call(Hcall.H_REG_CRQ, UNIT, QUEUE_IOBA, 4096) == H.RESOURCE


def test_a_full_queue_holds_entries_until_there_is_room(machine: Machine) -> None:
    machine.register()
    entries = [bytes((0x80, 0)) + number.to_bytes(14, "big") for number in range(300)]
    machine.put(*entries, position=0)
    assert machine.slot(255) == entries[255]
    for number in range(44):
        machine.ram.write(QUEUE + 16 * number, b"\0")
    assert machine.slot(0)[1:] == entries[0][1:]
    assert machine.call(Hcall.H_VIO_SIGNAL, UNIT, 1) == H.SUCCESS
    assert [machine.slot(number) for number in range(44)] == entries[256:]
    assert len(machine.pulses) == 2


def test_a_device_that_floods_its_queue_is_cut_off(machine: Machine) -> None:
    machine.register()
    for number in range(MAX_HELD + 256):
        machine.put(COMMAND, position=number)
    with pytest.raises(TransportError, match=f"{MAX_HELD} queue entries"):
        machine.put(COMMAND, position=MAX_HELD + 256)


def test_entries_that_are_said_again_are_written_once_and_none_is_left_out(machine: Machine) -> None:
    machine.register()
    entries = [bytes((0x80, number)) + bytes(14) for number in range(6)]
    machine.put(*entries[:3], position=0)
    machine.put(*entries[1:5], position=1)
    machine.put(entries[4], position=4)
    machine.put(COMMAND, position=9)  # Those before it are missing, and will be said again.
    machine.put(entries[5], position=5)
    assert [machine.slot(number) for number in range(7)] == [*entries, bytes(16)]
    [queue] = machine.transports.open_queues(cast("LinkStatus", machine.link))
    assert (queue.unit_address, queue.entries) == (UNIT, 6)


@given(st.data())
def test_entries_are_put_in_order_and_once_whatever_order_their_messages_come_in(data: st.DataObject) -> None:
    """A fault may have one message overtake another; after a lost connection some are said again, behind newer ones or before."""
    machine = Machine()
    machine.register()
    entries = [struct.pack(">BBH12x", 0x80, 1, number) for number in range(data.draw(st.integers(1, 200)))]
    cuts = sorted({0, len(entries), *data.draw(st.lists(st.integers(0, len(entries)), max_size=12))})
    pieces = [(start, end) for start, end in itertools.pairwise(cuts)]
    again = data.draw(st.lists(st.sampled_from([(a, b) for a in cuts for b in cuts if a < b]), max_size=6))
    for start, end in data.draw(st.permutations([*pieces, *again])):
        machine.put(*entries[start:end], position=start)
    assert [machine.slot(number) for number in range(len(entries) + 1)] == [*entries, bytes(16)]


def test_a_device_that_leaves_a_gap_is_cut_off_in_time(machine: Machine) -> None:
    machine.register()
    for number in range(MAX_HELD // 256):
        machine.put(*[COMMAND] * 256, position=1 + 256 * number)
    with pytest.raises(TransportError, match="not those before them"):
        machine.put(COMMAND, position=MAX_HELD + 1)


def test_entries_of_the_queue_before_are_none_of_the_next(machine: Machine) -> None:
    machine.register()
    machine.put(COMMAND, position=2)
    assert machine.call(Hcall.H_FREE_CRQ, UNIT) == H.SUCCESS
    machine.register()
    machine.put(COMMAND, COMMAND, position=0)
    assert [machine.slot(number) for number in range(3)] == [COMMAND, COMMAND, bytes(16)]


def test_a_queue_that_was_unmapped_takes_entries_without_harm(machine: Machine) -> None:
    machine.register()
    machine.window[QUEUE_IOBA // PAGE_BYTES] = 0
    machine.put(COMMAND, position=0)
    assert machine.slot(0) == bytes(16)


def test_a_device_that_lost_its_queue_is_one_transport_event_and_then_closed(machine: Machine) -> None:
    machine.register()
    machine.put(COMMAND, position=0)
    assert machine.call(Hcall.H_SEND_CRQ, UNIT, 0, 0) == ANOTHERS, "it goes to the device"
    for _ in range(2):  # The process ended, and ends again before the guest has seen it.
        machine.transports.take(machine.link.offers(with_queue(), PLAIN_DEVICE), attached_anew=True)
    assert [machine.slot(1), machine.slot(2)] == [TRANSPORT_EVENT, bytes(16)]
    assert machine.call(Hcall.H_SEND_CRQ, UNIT, 0, 0) == H.CLOSED
    machine.put(COMMAND, position=1)
    assert machine.slot(2) == bytes(16), "what it says now is not for the queue of before"
    assert list(machine.transports.open_queues(cast("LinkStatus", machine.link))) == []
    assert machine.call(Hcall.H_FREE_CRQ, UNIT) == H.SUCCESS
    machine.ram.write(QUEUE, bytes(4096))
    machine.register()
    machine.put(COMMAND, position=0)
    assert machine.slot(0) == COMMAND
    assert machine.call(Hcall.H_SEND_CRQ, UNIT, 0, 0) == ANOTHERS


def test_a_device_that_knows_its_queue_after_a_lost_connection_goes_on(machine: Machine) -> None:
    machine.register()
    machine.transports.take(machine.link.offers(with_queue(queue_open=True), PLAIN_DEVICE), attached_anew=True)
    machine.transports.take(machine.link.offers(with_queue(), PLAIN_DEVICE), attached_anew=False)  # Said before it was told.
    assert machine.slot(0) == bytes(16)
    assert machine.call(Hcall.H_SEND_CRQ, UNIT, 0, 0) == ANOTHERS


def test_sends_to_a_device_that_is_away_for_long_are_closed(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.register()
    machine.link.attached = False
    machine.transports.connection_changed(cast("LinkStatus", machine.link))
    assert machine.call(Hcall.H_SEND_CRQ, UNIT, 0, 0) == ANOTHERS, "it may be back in a moment"
    monkeypatch.setattr(module, "AWAY_S", -1.0)
    assert machine.call(Hcall.H_SEND_CRQ, UNIT, 0, 0) == H.CLOSED
    machine.link.attached = True
    machine.transports.take(machine.link.offers(with_queue(queue_open=True), PLAIN_DEVICE), attached_anew=True)
    assert machine.call(Hcall.H_SEND_CRQ, UNIT, 0, 0) == ANOTHERS


def test_quiesce_and_reset_leave_nothing(machine: Machine) -> None:
    machine.register()
    machine.window.bypass = True
    assert machine.rtas("quiesce") == ANOTHERS_RTAS, "the devices are told, too"
    assert not machine.window.bypass
    assert machine.get(QUEUE_IOBA) == 0
    assert not machine.transports.interrupts(SOURCE)
    assert machine.call(Hcall.H_SEND_CRQ, UNIT, 0, 0) == H.CLOSED
    machine.put(COMMAND, position=0)
    assert machine.slot(0) == bytes(16)
    machine.register()


# Back ends.


def test_two_back_ends_cannot_have_one_device(machine: Machine) -> None:
    with pytest.raises(TransportError, match="is one of disks, too"):
        machine.transports.take(FakeLink("others").offers(with_queue()), attached_anew=True)
    other = FakeLink("others")
    other.offer.routes = (
        pb.Route(kind=pb.CALL_KIND_HYPERCALL, token=Hcall.H_PUT_TCE, keys=[pb.KeyRange(first=UNIT - 1, last=UNIT)]),
    )
    with pytest.raises(TransportError, match=r"H_PUT_TCE for key 0x71000002 is claimed by others and by disks's transport"):
        machine.transports.take(other.offers(), attached_anew=True)
    with pytest.raises(TransportError, match="which it does not have"):
        machine.transports.put(cast("LinkStatus", other), pb.CrqEntries(unit_address=UNIT, entries=COMMAND))
    assert machine.transports.window(cast("LinkStatus", other), UNIT) is None


@pytest.mark.parametrize(
    "wrong",
    [
        pb.Transport(unit_address=0),
        pb.Transport(unit_address=9, window_bytes=100),
        pb.Transport(unit_address=9, window_bytes=2 * WINDOW_BYTES),
        pb.Transport(unit_address=9, has_queue=True),
    ],
)
def test_a_transport_that_cannot_be_is_refused(machine: Machine, wrong: pb.Transport) -> None:
    with pytest.raises(TransportError, match="its transport"):
        machine.transports.take(machine.link.offers(with_queue(), wrong), attached_anew=True)
    assert machine.transports.find(UNIT) is not None


def test_a_device_that_leaves_takes_its_window_along(machine: Machine) -> None:
    machine.register()
    machine.transports.take(machine.link.offers(PLAIN_DEVICE), attached_anew=False)
    assert machine.call(Hcall.H_GET_TCE, UNIT, 0) == ANOTHERS
    machine.transports.take(machine.link.offers(with_queue(), PLAIN_DEVICE), attached_anew=False)
    assert machine.get(QUEUE_IOBA) == 0
    assert machine.call(Hcall.H_SEND_CRQ, UNIT, 0, 0) == H.CLOSED


def test_windows_are_found_in_the_file_by_their_devices() -> None:
    tables = TceTables(mmap.mmap(-1, FILE_BYTES))
    windows = {unit: tables.add(unit, 16) for unit in range(1, 257)}
    assert tables.add(257, 16) is None, "there is room for 256"
    for unit, window in windows.items():
        assert window is not None
        window[15] = unit
    tables.remove(7)
    assert tables.window(7) is None
    again = tables.add(300, 16)
    assert again is not None
    assert again[15] == 0
    assert sorted(tables.units) == sorted({*windows, 300} - {7})
    assert all(found[15] == unit for unit in windows if unit != 7 and (found := tables.window(unit)) is not None)


# Snapshots.


def test_transports_come_back() -> None:
    machine = Machine()
    machine.register()
    entries = [bytes((0x80, 0)) + number.to_bytes(14, "big") for number in range(258)]
    machine.put(*entries, position=0)
    again = Machine(machine.transports.save(), machine.tables, queue_open=True)
    again.ram.write(QUEUE, machine.ram.read(QUEUE, 4096))
    assert again.transports.save() == machine.transports.save()
    again.ram.write(QUEUE, b"\0")
    again.ram.write(QUEUE + 16, b"\0")
    again.transports.put_held()
    assert [again.slot(0), again.slot(1)] == entries[256:]
    assert again.pulses == [SOURCE]
    assert again.get(QUEUE_IOBA) == QUEUE | RW


@pytest.mark.parametrize(
    "wrong",
    [
        spb.SavedTransport(unit_address=UNIT, signal_mode=2),
        spb.SavedTransport(unit_address=UNIT, queue=spb.SavedQueue(ioba=1, bytes=4096)),
        spb.SavedTransport(unit_address=UNIT, queue=spb.SavedQueue(ioba=0, bytes=4096, next=4096)),
        spb.SavedTransport(unit_address=UNIT, queue=spb.SavedQueue(ioba=0, bytes=4096, held=b"x")),
    ],
)
def test_a_saved_transport_that_cannot_be_is_refused(wrong: spb.SavedTransport) -> None:
    with pytest.raises(TransportError):
        Machine([wrong])
