# SPDX-License-Identifier: GPL-2.0-or-later
"""What the records of one link mean: requests with their answers, whatever connections they took."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from splitvisor.recording import RecordingError
from splitvisor.recording.conversation import Event, Introduction, Item, Recording, Step
from splitvisor.recording.memory import CallMemory
from splitvisor.rpc import recording_pb2 as rpb
from splitvisor.rpc import trap_pb2 as pb
from tests.unit.recordings import LINK, attached, call, request, response, some_calls, start, trap


def items(*records: rpb.Record) -> list[Item]:
    recording = Recording([start(), *attached(), *records], "r")
    found = [item for _, item in recording.items(LINK)]
    assert isinstance(found[0], Introduction)
    return found[1:]


def steps(found: Iterable[Item]) -> list[Step]:
    return [item for item in found if isinstance(item, Step)]


def test_a_call_and_its_answer_are_one_step() -> None:
    [step] = steps(items(*call(5, 1, 3, 9)))
    assert (step.time_ns, step.answered_ns) == (5, 6)
    assert list(step.request.trap.arguments) == [3]
    assert list(step.response.reply.outputs) == [9]


def test_what_a_lost_connection_made_cpu_service_repeat_counts_once() -> None:
    first, answer = call(5, 1, 3, 9)
    posted = request(7, pb.AttachRequest(posted=pb.PostedBatch(traps=[trap(2, 1), trap(3, 2)])))
    again = request(9, pb.AttachRequest(posted=pb.PostedBatch(traps=[trap(2, 1), trap(3, 2), trap(4, 5)])))
    done = response(10, pb.AttachResponse(acknowledge=pb.Acknowledge(sequence=4)))
    found = steps(items(first, answer, posted, *attached(8), first_again(first), answer, again, done))
    assert [[list(each.arguments) for each in step.traps] for step in found] == [[[3]], [[1], [2]], [[5]]]


def first_again(record: rpb.Record) -> rpb.Record:
    return request(9, record.request)


def test_what_a_back_end_asks_belongs_to_the_call_that_it_works_on() -> None:
    first, answer = call(5, 1, 3, 9)
    read = response(5, pb.AttachResponse(memory_read=pb.MemoryRead(id=7, range=pb.MemoryRange(address=16, length=4))))
    result = request(5, pb.AttachRequest(memory_result=pb.MemoryResult(id=7, ok=True, data=b"abcd")))
    pulse = response(6, pb.AttachResponse(interrupt=pb.Interrupt(source=0x1000)))
    found = items(first, read, pulse, result, answer)
    [step] = steps(found)
    assert step.asked == [(read.response, result.request)]
    assert [item.message for item in found if isinstance(item, Event)] == [pulse.response]


def test_a_batch_is_answered_when_each_of_its_vcpus_is() -> None:
    batch = request(7, pb.AttachRequest(posted=pb.PostedBatch(traps=[trap(1, 1), trap(1, 2, vcpu=1), trap(2, 3)])))
    one = response(8, pb.AttachResponse(acknowledge=pb.Acknowledge(vcpu=1, sequence=1)))
    partly = response(8, pb.AttachResponse(acknowledge=pb.Acknowledge(vcpu=0, sequence=1)))
    other = response(9, pb.AttachResponse(acknowledge=pb.Acknowledge(vcpu=0, sequence=2)))
    assert steps(items(batch, one, partly)) == []
    assert len(steps(items(batch, one, partly, other))) == 1


def test_a_batch_comes_before_the_call_after_it_though_it_is_acknowledged_later() -> None:
    batch = request(7, pb.AttachRequest(posted=pb.PostedBatch(traps=[trap(1, 1), trap(1, 2, vcpu=1)])))
    later = [response(9, pb.AttachResponse(acknowledge=pb.Acknowledge(vcpu=vcpu, sequence=1))) for vcpu in (0, 1)]
    found = steps(items(batch, *call(8, 2, 3, 9), *later))
    assert [[list(each.arguments) for each in step.traps] for step in found] == [[[1], [2]], [[3]]]


def test_batches_stay_in_order_however_their_acknowledgements_come() -> None:
    batches = (
        [trap(1, 1), trap(1, 2, vcpu=1)],
        [trap(2, 3)],
        [trap(2, 4, vcpu=1)],
        [trap(3, 5)],
    )
    requests = [request(7, pb.AttachRequest(posted=pb.PostedBatch(traps=batch))) for batch in batches]
    # A back end that is busy acknowledges several batches of a vCPU at a time, one vCPU after the other.
    done = [response(9, pb.AttachResponse(acknowledge=pb.Acknowledge(vcpu=vcpu, sequence=end))) for vcpu, end in ((0, 3), (1, 2))]
    found = steps(items(*requests, *done))
    assert [[list(each.arguments) for each in step.traps] for step in found] == [[[1], [2]], [[3]], [[4]], [[5]]]


def test_calls_without_an_answer_are_counted() -> None:
    recording = Recording([start(), *attached(), *call(5, 1, 3, 9)[:1]], "r")
    assert steps(item for _, item in recording.items()) == []
    assert recording.conversations[0].unanswered == 1
    assert "has no end" in recording.note("")


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "no whole record of how it began"),
        (some_calls(1)[1:], "no whole record of how it began"),
        ([start(), rpb.Record(link=2, request=pb.AttachRequest(reset=pb.Reset(count=1)))], "link 2 of 1"),
        ([start(), *call(1, 1, 1, 1)], "that it did not offer"),
        ([start(), *attached(), request(1, pb.AttachRequest(trap=trap(1, route=2)))], "that it did not offer"),
        (
            [start(), *attached(), *(request(1, pb.AttachRequest(trap=trap(number))) for number in range(1, 5000))],
            "4096 calls to vio_service without an answer",
        ),
    ],
)
def test_a_recording_that_makes_no_sense_is_refused(records: list[rpb.Record], message: str) -> None:
    with pytest.raises(RecordingError, match=message):
        list(Recording(records, "r").items())


def test_memory_of_a_call_is_read_in_any_pieces_and_follows_its_writes() -> None:
    operand = pb.MemoryBlock(address=0x100, data=b"operand.")
    step = Step(0, pb.AttachRequest(trap=pb.Trap(operands=[operand])))
    read = pb.MemoryRead(id=1, range=pb.MemoryRange(address=0x108, length=4))
    answer = pb.MemoryResult(id=1, ok=True, data=b"read")
    step.asked.append((pb.AttachResponse(memory_read=read), pb.AttachRequest(memory_result=answer)))
    memory = CallMemory(step)
    assert memory.read(0x102, 8) == b"erand.re"
    assert memory.read(0x10A, 3) is None
    memory.write(pb.MemoryBlock(address=0x106, data=b"WRITE"))
    assert memory.read(0x104, 8) == b"anWRITEd"
