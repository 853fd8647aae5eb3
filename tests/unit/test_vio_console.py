# SPDX-License-Identifier: GPL-2.0-or-later
"""Consoles: the output log, readers, the writer's place, input with backpressure, the end."""

from __future__ import annotations

import asyncio

import pytest

from splitvisor.rpc import console_pb2
from splitvisor.terminal.sequences import units_end
from vio_service.console.console import INPUT_BYTES, MAX_ATTACHMENTS, Attachment, Console, ConsoleBusyError
from vio_service.console.output_log import BACKLOG_BYTES, REPLAY_BYTES, OutputLog


def make_console() -> Console:
    return Console("vm", 0x71000000, on_input=lambda: None)


def attach(console: Console, client: str = "c", *, writer: bool = False, force: bool = False, replay: bool = True) -> Attachment:
    return console.attach(client, writer=writer, force=force, replay=replay)


def test_the_log_keeps_the_newest_bytes_at_their_positions() -> None:
    log = OutputLog()
    for number in range(BACKLOG_BYTES // 4 + 10):
        log.append(number.to_bytes(4, "big"))
    assert (log.start, log.end) == (40, BACKLOG_BYTES + 40)
    assert log.read(40, 4) == (10).to_bytes(4, "big")
    assert log.read(log.end - 4, 100) == (BACKLOG_BYTES // 4 + 9).to_bytes(4, "big")


def test_every_reader_gets_all_output_at_its_own_pace() -> None:
    console = make_console()
    fast, slow = attach(console, "fast"), attach(console, "slow")
    console.write(b"one ")
    assert fast.take_output(100) == b"one "
    console.write(b"two")
    assert fast.take_output(100) == b"two"
    assert [slow.take_output(3), slow.take_output(100), slow.take_output(100)] == [b"one", b" two", b""]


def test_a_new_reader_gets_the_replay_or_only_what_comes_next() -> None:
    console = make_console()
    console.write(b"x" * 10 + b"y" * REPLAY_BYTES)
    old, new = attach(console), attach(console, replay=False)
    assert (old.position, new.position) == (10, 10 + REPLAY_BYTES)
    assert old.take_output(1 << 20) == b"y" * REPLAY_BYTES
    assert new.take_output(10) == b""


def test_a_reader_that_lost_output_is_marked_and_skipped_ahead_and_the_others_are_not() -> None:
    console = make_console()
    slow, fast = attach(console, "slow"), attach(console, "fast")
    console.write(b"a")
    for _ in range(17):
        console.write(bytes(BACKLOG_BYTES // 16))
        fast.take_output(1 << 20)
    written = 1 + 17 * BACKLOG_BYTES // 16
    assert (slow.take_skipped(), fast.take_skipped()) == (written - REPLAY_BYTES, 0)
    assert (slow.take_skipped(), slow.end) == (0, None)
    assert len(slow.take_output(1 << 20)) == REPLAY_BYTES
    assert [(client.name, client.skipped_bytes, client.behind_bytes) for client in console.describe().clients] == [
        ("slow", written - REPLAY_BYTES, 0),
        ("fast", 0, 0),
    ]


def test_a_reader_that_is_skipped_ahead_gets_nothing_after_its_end() -> None:
    console = make_console()
    first = attach(console, "alice", writer=True)
    console.write(b"before")
    attach(console, "bob", writer=True, force=True)
    console.write(bytes(2 * BACKLOG_BYTES))
    assert first.take_skipped() == 6
    assert first.take_output(100) == b""


@pytest.mark.parametrize(
    ("resume", "position"),
    [(0, 10), (15, 15), (10 + BACKLOG_BYTES, 10 + BACKLOG_BYTES), (1 << 60, 10 + BACKLOG_BYTES)],
)
def test_a_terminal_goes_on_where_it_was_as_far_as_that_is_there(resume: int, position: int) -> None:
    console = make_console()
    console.write(bytes(10 + BACKLOG_BYTES))
    assert console.attach("c", writer=False, force=False, replay=True, resume=resume).position == position


def test_the_size_of_the_writers_terminal_counts() -> None:
    console = make_console()
    writer, reader = attach(console, "writer", writer=True), attach(console, "reader")
    console.resize(writer, 24, 80)
    console.resize(reader, 50, 132)
    size = console.describe().window_size
    assert (size.rows, size.columns) == (24, 80)


def test_a_second_writer_is_refused_by_name_of_the_first() -> None:
    console = make_console()
    first = attach(console, "alice", writer=True)
    with pytest.raises(ConsoleBusyError, match="alice types on this console"):
        attach(console, "bob", writer=True)
    assert first.is_writer
    attach(console, "bob")
    console.detach(first)
    assert attach(console, "bob", writer=True).is_writer


def test_force_takes_the_writers_place_and_tells_it() -> None:
    console = make_console()
    first = attach(console, "alice", writer=True)
    second = attach(console, "bob", writer=True, force=True)
    assert second.is_writer
    assert first.end is not None
    assert (first.end.reason, first.end.text) == (console_pb2.CONSOLE_END_REASON_TAKEN_OVER, "bob took over")
    console.detach(first)
    assert second.is_writer, "the old writer's late goodbye changes nothing"


def test_a_terminal_that_comes_back_replaces_its_lost_connection() -> None:
    console = make_console()
    first = attach(console, "alice", writer=True)
    assert attach(console, "alice", writer=True).is_writer
    assert not first.is_writer


def test_attachments_are_bounded() -> None:
    console = make_console()
    for number in range(MAX_ATTACHMENTS):
        attach(console, str(number))
    with pytest.raises(ConsoleBusyError, match="64 readers"):
        attach(console)


def test_the_end_comes_after_all_output_and_the_first_reason_counts() -> None:
    console = make_console()
    reader = attach(console)
    console.write(b"last words")
    console.end(console_pb2.CONSOLE_END_REASON_VM_ENDED, "over")
    console.end(console_pb2.CONSOLE_END_REASON_SHUTDOWN, "later")
    assert reader.take_output(100) == b"last words"
    assert reader.end is not None
    assert (reader.end.reason, reader.end.text, reader.end.position) == (console_pb2.CONSOLE_END_REASON_VM_ENDED, "over", 10)
    late = attach(console)
    assert late.take_output(100) == b"last words"
    assert late.end is not None
    assert late.end.reason == console_pb2.CONSOLE_END_REASON_VM_ENDED


def test_output_after_a_take_over_is_not_the_old_writers() -> None:
    console = make_console()
    first = attach(console, "alice", writer=True)
    console.write(b"before")
    attach(console, "bob", writer=True, force=True)
    console.write(b"after")
    assert first.take_output(100) == b"before"
    assert first.take_output(100) == b""


def test_input_waits_for_the_guest_and_is_acknowledged_as_it_is_taken() -> None:
    async def scenario() -> None:
        console = make_console()
        writer = attach(console, writer=True)
        data = bytes(range(256)) * (2 * INPUT_BYTES // 256)
        feeding = asyncio.create_task(writer.feed(data))
        await writer.wake.wait()
        assert writer.take_accepted() == INPUT_BYTES
        assert not feeding.done()
        got = bytearray()
        async with asyncio.timeout(5):
            while len(got) < len(data):
                block = console.peek_input(1000)
                got += block
                console.drop_input(len(block))
                await asyncio.sleep(0)
            await feeding
        assert got == data
        assert writer.take_accepted() == INPUT_BYTES
        assert console.describe().input_bytes == len(data)

    asyncio.run(scenario())


def test_input_of_a_writer_that_was_replaced_stops() -> None:
    async def scenario() -> None:
        console = make_console()
        first = attach(console, "alice", writer=True)
        feeding = asyncio.create_task(first.feed(b"a" * (INPUT_BYTES + 5)))
        await first.wake.wait()
        attach(console, "bob", writer=True, force=True)
        async with asyncio.timeout(5):
            await feeding
        assert console.waiting_input == INPUT_BYTES
        assert set(console.peek_input(INPUT_BYTES)) == {ord("a")}
        assert first.take_accepted() == INPUT_BYTES

    asyncio.run(scenario())


STYLED = ("\x1b[1;31mrot\x1b[0m \x1b]0;Ärger\x07ünd 😀 \x1bP0;1|17/AB\x1b\\schwarz\x1b(B\r\n" * 3).encode()


def test_a_replay_begins_between_two_sequences_wherever_its_length_would_cut() -> None:
    console = make_console()
    for start in range(0, len(STYLED), 16):
        console.write(STYLED[start : start + 16])
    whole = [end for end in range(len(STYLED) + 1) if units_end(STYLED[:end]) == end]
    for console.replay_bytes in range(len(STYLED) + 1):
        reader = attach(console)
        position = reader.position
        assert position == min(place for place in whole if place >= len(STYLED) - console.replay_bytes)
        assert reader.take_output(1 << 20) == STYLED[position:]
        console.detach(reader)


def test_a_log_that_forgets_knows_where_sequences_end() -> None:
    console = make_console()
    log = console.output
    unit = b"\x1b[1;31m"
    for _ in range(BACKLOG_BYTES // 700 + 3):
        log.append(unit * 100)
    assert log.start % 7
    for position in (log.start, log.start + 1, log.start + 70_001, log.end - 3):
        assert log.boundary_from(position) == -(-position // 7) * 7
    assert log.cut(log.start + 10, log.start + 50_003) % 7 == 0
    assert b"".join(log.newest(0, 1 << 16))[:7] == unit
    assert b"".join(log.newest(1000, 1 << 16)) == unit * 142
    again = OutputLog(-(-log.start // 7) * 7 - 140)
    again.append(unit * 20 + log.read(log.start, BACKLOG_BYTES)[-log.start % 7 :])
    assert again.start % 7
    assert again.boundary_from(again.start) == -(-again.start // 7) * 7


def test_what_a_terminal_would_answer_is_not_in_a_replay_and_is_in_live_output() -> None:
    console = make_console()
    console.write(b"# \x1b[6n\x1b]11;?\x07")
    console.write(b"\x1b[3")
    reader = attach(console)
    assert reader.take_output(100) == b"# " + bytes(11) + b"\x1b[3"
    console.write(b"1m\x1b[6n")
    assert reader.take_output(100) == b"1m\x1b[6n"
    resumed = console.attach("c", writer=False, force=False, replay=True, resume=reader.position - 2)
    assert resumed.take_output(100) == b"\x18\0", "the terminal has the first half of the query"


def test_a_reader_never_gets_a_part_of_a_sequence_while_the_rest_is_there() -> None:
    console = make_console()
    reader = attach(console)
    console.write(STYLED)
    for limit in range(13, 40):
        reader.position = 0
        got = b""
        while piece := reader.take_output(limit):
            assert units_end(piece) == len(piece)
            got += piece
        assert got == STYLED


def test_the_beginning_of_a_sequence_waits_for_its_rest_but_not_for_long() -> None:
    async def scenario() -> None:
        console = make_console()
        reader = attach(console)
        console.write(b"text\x1b[3")
        assert reader.take_output(100) == b"text"
        assert reader.take_output(100) == b""
        reader.wake.clear()
        await reader.more()
        assert reader.take_output(100) == b"\x1b[3"
        console.write(b"1m")
        assert reader.take_output(100) == b"1m"
        console.write(b"\xc3")
        console.end(console_pb2.CONSOLE_END_REASON_VM_ENDED, "over")
        assert reader.take_output(100) == b"\xc3"

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_who_comes_in_the_middle_of_a_long_string_does_not_get_its_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vio_service.console.output_log.HOLD_SECONDS", 0.0)
    console = make_console()
    console.write(b"\x1bPq" + b"~" * 2 * REPLAY_BYTES)
    reader = attach(console)
    assert reader.position == console.output.end
    console.write(b"~~~")
    assert reader.take_output(100) == b"\0\0\0"
    console.write(b"~\x1b")
    console.write(b"\\text")
    assert reader.take_output(100) == b"\0\0\0text"
    early = attach(console)
    assert early.take_output(100) == b"text"


def test_a_reader_that_is_skipped_ahead_goes_on_between_two_sequences_without_queries() -> None:
    console = make_console()
    slow = attach(console)
    for _ in range(2 * BACKLOG_BYTES // 7000):
        console.write(b"\x1b[?25h\x1b[6n" * 700)
    assert slow.take_skipped() > 0
    assert slow.position % 10 in (0, 6)
    assert b"\x1b[6n" not in slow.take_output(1 << 20)
    console.write(b"\x1b[6n")
    assert slow.take_output(10) == b"\x1b[6n"
