# SPDX-License-Identifier: GPL-2.0-or-later
"""A recording of a machine in which two back ends share calls: each is replayed, and stood in for, by itself."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from cpu_service.observe.recorder import Recorder
from splitvisor.backend import Vm
from splitvisor.papr.codes import H
from splitvisor.recording.comparison import Difference, Outcome
from splitvisor.recording.conversation import Recording
from splitvisor.recording.file import RecordingReader
from splitvisor.recording.replay import replay
from splitvisor.recording.stand_in import Script, StandIn
from splitvisor.recording.statistics import statistics
from splitvisor.rpc import machine_pb2 as mpb
from tests.component.test_shared_calls import (
    BLOCK,
    H_SAY,
    HighSession,
    LowSession,
    config,
    own,
    who,
)
from tests.component.test_trap_router import Routed
from tests.component.trap_backend import ThreadBackend
from tests.component.trap_client import wait_until


def talk(routed: Routed) -> list[tuple[int, ...]]:
    """What the guest asks, and what it is answered."""
    answers: list[tuple[int, ...]] = [who(routed, key) for key in (0x100, 0x200, 0x21F, 0x300)]
    for word in (0x110, 0x210):
        routed.ram.write(BLOCK, (0).to_bytes(4, "big") + word.to_bytes(4, "big"))
        answers.append(config(routed, "test,connector", BLOCK, returns=2))
    answers += [config(routed, "test,config", 5, key, 7, returns=3) for key in (0x100, 0x200)]
    answers += [(routed.hypercall(H_SAY, key, 1, value),) for key, value in ((0x100, 1), (0x200, 2))]
    return answers


@pytest.fixture
def recorded(short_path: Path) -> tuple[Path, str, str, list[tuple[int, ...]]]:
    """A recording, the names of its back ends, and what the guest got. High gets a key meanwhile."""
    low, high = ThreadBackend(short_path, "low", LowSession), ThreadBackend(short_path, "high", HighSession)
    names = (low.address, high.address)
    file = short_path / "shared.recording"
    machine = mpb.MachineConfig(name="vm", backends=[mpb.BackendAddress(name=name, address=name) for name in names])
    recorder = Recorder(file, machine)
    routed = Routed(low, high, taps=[recorder.tap(number) for number in range(2)])
    answers = talk(routed)
    own(high, 0x200, 0x240)
    wait_until(lambda: who(routed, 0x240)[0] == H.SUCCESS, "the key is there")
    counts = routed.router.call_counts()
    routed.close()
    recorder.close("over", counts)
    for backend in (low, high):
        backend.close()
    return file, *names, answers


def opened(file: Path) -> Recording:
    return Recording(RecordingReader(io.BytesIO(file.read_bytes()), file.name), file.name)


class StandInBackend(ThreadBackend):
    """A recording in the place of a back end."""

    def __init__(self, directory: Path, script: Script) -> None:
        self._stand_in = StandIn(script)
        super().__init__(directory, "stand-in")

    async def add_servicers(self, server: grpc.aio.Server) -> Callable[[], Awaitable[None]]:
        return await self._stand_in.start(server, None)


def test_statistics_have_a_line_for_each_owner(recorded: tuple[Path, str, str, Any]) -> None:
    file, low, high, _ = recorded
    found = statistics(opened(file))
    counts = {(each.link, each.name): each.count for each in found.calls if each.name in ("H_WHO", "H_SAY")}
    assert counts == {(low, "H_WHO"): 1, (high, "H_WHO"): 3, (low, "H_SAY"): 1, (high, "H_SAY"): 1}
    assert not [each for each in found.local if each.name == "H_WHO"]


@pytest.mark.parametrize("which", ["low", "high"])
def test_each_owner_is_replayed_by_itself(recorded: tuple[Path, str, str, Any], short_path: Path, which: str) -> None:
    file, low, high, _ = recorded
    link, kind = (low, LowSession) if which == "low" else (high, HighSession)
    differences: list[Difference] = []
    backend = ThreadBackend(short_path, "fresh", kind)
    try:
        outcome: Outcome = backend.run(replay(opened(file), link, backend.target, None, differences.append))
    finally:
        backend.close()
    # Whoever gave it a key is not in its stream.
    assert [each.what for each in differences] == ([] if which == "low" else ["messages"])
    assert (outcome.failure, outcome.calls > 3) == ("", True)
    if which == "high":
        assert "owns keys 0x200, 0x240" in differences[0].expected


def test_an_owner_with_other_keys_is_a_difference(recorded: tuple[Path, str, str, Any], short_path: Path) -> None:
    class Other(LowSession):
        def __init__(self, vm: Vm) -> None:
            super().__init__(vm)
            self.owned = [0x100]

    file, low, _, _ = recorded
    differences: list[Difference] = []
    backend = ThreadBackend(short_path, "other", Other)
    try:
        backend.run(replay(opened(file), low, backend.target, None, differences.append))
    finally:
        backend.close()
    assert {each.what: (each.expected, each.got) for each in differences} == {
        f"{call}: keys": ("keys 0x100, 0x110 to 0x11f", "keys 0x100") for call in ("H_WHO", "H_SAY", "test,connector")
    }


def test_a_recording_stands_in_for_one_owner_with_the_keys_that_it_had(
    recorded: tuple[Path, str, str, list[tuple[int, ...]]], short_path: Path
) -> None:
    file, _, high, answers = recorded
    said: list[str] = []
    low = ThreadBackend(short_path, "low-again", LowSession)
    stand_in = StandInBackend(short_path, Script(opened(file), high, said.append))
    routed = Routed(low, stand_in)
    try:
        assert talk(routed) == answers
        wait_until(lambda: who(routed, 0x240) == (H.SUCCESS, 0x200), "it has the key that it got")
        assert who(routed, 0x21F)[0] == H.NOT_FOUND, "and not what it gave away"
        assert not said
    finally:
        routed.close()
        for backend in (low, stand_in):
            backend.close()
    assert len(said) == 1
    assert "stayed in the recording" in said[0]
