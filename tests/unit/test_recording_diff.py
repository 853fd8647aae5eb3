# SPDX-License-Identifier: GPL-2.0-or-later
"""What two recordings differ in."""

from __future__ import annotations

from splitvisor.recording.conversation import Recording
from splitvisor.recording.diff import WINDOW, Entry, changes, entries
from splitvisor.rpc import recording_pb2 as rpb
from tests.unit.recordings import LINK, attached, call, some_calls, start


def _diff(before: str, after: str) -> str:
    found = changes((Entry((each,), each) for each in before), (Entry((each,), each) for each in after))
    return " ".join(change.sign + change.entry.text for change in found)


def test_the_shortest_way_back_to_what_is_alike_is_taken() -> None:
    assert _diff("abcdef", "abcdef") == ""
    assert _diff("abXcdef", "abcdYef") == "-X +Y"
    assert _diff("abc", "abcd") == "+d"
    assert _diff("abcd", "bcd") == "-a"
    assert _diff("", "ab") == "+a +b"
    assert _diff("abc", "xyz") == "-a +x -b +y -c +z"


def test_memory_does_not_grow_with_what_is_compared() -> None:
    same = 100 * WINDOW
    before = (Entry((number,), str(number)) for number in range(same))
    after = (Entry((number,), str(number)) for number in range(-1, same))
    assert [change.entry.text for change in changes(before, after)] == ["-1"]


def _recording(records: list[rpb.Record]) -> Recording:
    return Recording(records, "r")


def test_times_and_numbers_of_calls_do_not_count() -> None:
    one = _recording(some_calls(3))
    other = _recording([start(), *attached(5), *call(100, 7, 1, 1), *call(200, 8, 2, 4), *call(300, 9, 3, 9)])
    assert list(changes(entries(one, LINK, lambda _: True), entries(other, LINK, lambda _: True))) == []


def test_another_answer_is_a_difference_with_both_texts() -> None:
    one, other = _recording([start(), *attached(), *call(1, 1, 2, 4)]), _recording([start(), *attached(), *call(1, 1, 2, 5)])
    found = list(changes(entries(one, LINK, lambda _: True), entries(other, LINK, lambda _: True)))
    assert [f"{change.sign} {change.entry.text}" for change in found] == [
        "- vcpu 0 H_ADD(0x2) -> H_SUCCESS r4=0x4",
        "+ vcpu 0 H_ADD(0x2) -> H_SUCCESS r4=0x5",
    ]
