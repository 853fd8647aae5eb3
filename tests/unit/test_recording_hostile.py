# SPDX-License-Identifier: GPL-2.0-or-later
"""Recordings whose frames are whole and whose records are not what a machine said: whatever reads them reads or refuses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from splitvisor.recording import RecordingError
from splitvisor.recording.conversation import Introduction, Recording
from splitvisor.recording.diff import changes, entries
from splitvisor.recording.file import RecordingReader
from splitvisor.recording.stand_in import Script, StandIn
from splitvisor.recording.statistics import statistics
from splitvisor.recording.text import item_lines
from splitvisor.rpc import recording_pb2 as rpb
from splitvisor.rpc import trap_pb2 as pb
from tests.amounts import examples

DEMO = Path(__file__).resolve().parent.parent / "data" / "demo.recording"
HEAD = 18
"""Records that begin every machine: its start, its connections, its tree."""


@pytest.fixture(scope="module")
def demo() -> list[rpb.Record]:
    with DEMO.open("rb") as file:
        return list(RecordingReader(file, DEMO.name))


def _show(recording: Recording) -> None:
    offer = pb.Offer()
    for name, item in recording.items():
        if isinstance(item, Introduction):
            offer = item.offer
        known = next((each.offer for each in recording.conversations if each.name == name), None) or offer
        for line in item_lines(item, known):
            assert line.isascii()
            assert line.isprintable()


def _diff(recording: Recording) -> None:
    list(changes(entries(recording, "vio_service", lambda _: True), []))


def _stand_in(recording: Recording) -> None:
    StandIn(Script(recording, "of_client_service", lambda _line: None))


@settings(max_examples=examples(100))
@given(data=st.data())
def test_records_that_no_machine_said_are_read_or_refused_with_one_line(demo: Sequence[rpb.Record], data: st.DataObject) -> None:
    which = data.draw(st.lists(st.integers(HEAD, len(demo) - 1), max_size=20))
    records = [*demo[:HEAD], *(demo[index] for index in which)]
    changed = data.draw(st.integers(0, len(records) - 1))
    contents = bytearray(records[changed].SerializeToString())
    for _ in range(data.draw(st.integers(0, 3))):
        contents[data.draw(st.integers(0, len(contents) - 1))] = data.draw(st.integers(0, 255))
    try:
        records[changed] = rpb.Record.FromString(bytes(contents))
    except DecodeError:
        return
    for use in (_show, statistics, _diff, _stand_in):
        try:
            use(Recording(records, "r"))
        except RecordingError as error:
            assert "\n" not in str(error)  # noqa: PT017  # most examples do not raise


def test_a_recording_cannot_make_its_reader_keep_requests_without_end() -> None:
    start = rpb.Record(start=rpb.RecordingStart(backends=["one"]))
    hello = rpb.Record(link=1, request=pb.AttachRequest(hello=pb.Hello(vm="vm")))
    offer = rpb.Record(link=1, response=pb.AttachResponse(offer=pb.Offer(routes=[pb.Route(name="H_ADD")])))
    block = pb.MemoryBlock(data=bytes(1 << 20))

    def records() -> Iterator[rpb.Record]:
        yield from (start, hello, offer)
        for number in range(1, 400):
            yield rpb.Record(link=1, request=pb.AttachRequest(trap=pb.Trap(sequence=number, operands=[block])))

    with pytest.raises(RecordingError, match="more than 64 MiB"):
        list(Recording(records(), "r").items())
