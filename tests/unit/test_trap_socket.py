# SPDX-License-Identifier: GPL-2.0-or-later
"""The unix socket of a trap stream: its framing, its names, and who may connect to what."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitvisor.limits import MESSAGE_BYTES
from splitvisor.trap.trap_socket import (
    SOCKET_SUFFIX,
    MessageReader,
    SocketFramingError,
    TrapListener,
    connect,
    framed,
    remove_abandoned_sockets,
)


@given(st.lists(st.binary(max_size=300), max_size=20), st.data())
def test_messages_come_whole_however_they_are_cut(messages: list[bytes], data: st.DataObject) -> None:
    sent = b"".join(map(framed, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=10)))
    reader = MessageReader()
    parts = [sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    assert [message for part in parts for message in reader.take(memoryview(part))] == messages


def test_the_largest_message_is_taken_and_a_larger_one_refused_by_its_length_alone() -> None:
    reader = MessageReader()
    (message,) = reader.take(framed(bytes(MESSAGE_BYTES)))
    assert len(message) == MESSAGE_BYTES
    with pytest.raises(SocketFramingError, match=f"{MESSAGE_BYTES + 1} bytes"):
        reader.take((MESSAGE_BYTES + 1).to_bytes(4, "little"))


def test_a_back_end_connects_however_deep_the_directory_is(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    listener = TrapListener(deep)
    assert listener.path.stat().st_mode & 0o777 == 0o600
    try:
        theirs = connect(listener.path, deep / "vm.ram")
        ours = listener.accept()
    finally:
        listener.close()
    with theirs, ours:
        theirs.sendall(b"here")
        assert ours.recv(4) == b"here"
    assert not list(deep.iterdir()), "the name goes once it has served"


def test_a_listener_without_a_guest_says_so(tmp_path: Path) -> None:
    listener = TrapListener(tmp_path)
    with pytest.raises(BlockingIOError):
        listener.accept()
    listener.close()


def test_a_back_end_connects_to_no_other_socket_of_its_user(tmp_path: Path) -> None:
    ram = tmp_path / "vm.ram"
    other = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(other))
        listening.listen()
        link = tmp_path / f"link{SOCKET_SUFFIX}"
        link.symlink_to(other)
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        listener = TrapListener(elsewhere)
        try:
            for path in (other, link, listener.path):
                with pytest.raises(OSError, match="is no socket called"):
                    connect(path, ram)
        finally:
            listener.close()
    with pytest.raises(FileNotFoundError):
        connect(tmp_path / f"nothing{SOCKET_SUFFIX}", ram)


def test_what_a_killed_cpu_service_left_goes_and_what_one_listens_on_stays(tmp_path: Path) -> None:
    living, dead = TrapListener(tmp_path), TrapListener(tmp_path)
    dead._socket.close()
    file = tmp_path / f"file{SOCKET_SUFFIX}"
    file.write_text("no socket")
    remove_abandoned_sockets(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {living.path.name, file.name}
    assert os.path.exists(living.path)
    living.close()
