# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor bench guest` measures the work of a guest of ours and of QEMU's, which must come to the same results."""

from __future__ import annotations

import dataclasses

import pytest

from splitvisor.bench import guest
from splitvisor.bench.peers import OURS, PROGRAM, BenchError, Peer
from tests.guests.harness import Guests

PEER = Peer("qemu", PROGRAM)


def test_each_work_is_done_by_both_with_the_same_result(guests: Guests, qemu: str) -> None:
    del guests, qemu
    said: list[str] = []
    figures = guest.measure(1, [PEER], said.append, scale=0.02)
    assert list(figures) == [work.name for work in guest.WORKS]
    for each in figures.values():
        for name in (OURS, "qemu"):
            assert each["seconds"][name][0] > 0
        assert each["ratio"] == each["ratios"]["qemu"] == each["medians"][OURS] / each["medians"]["qemu"]
    assert sum(figures[name]["cpu_seconds"][OURS][0] for name in figures) > 0.1
    assert len(said) == 2 * len(guest.WORKS)


def test_another_result_is_no_figure(guests: Guests, monkeypatch: pytest.MonkeyPatch, qemu: str) -> None:
    """A work that tells the processors apart: by what the kernel says of the machine."""
    del guests, qemu
    work = dataclasses.replace(guest.WORKS[0], command="busybox md5sum /proc/cpuinfo")
    monkeypatch.setattr(guest, "WORKS", (work,))
    with pytest.raises(BenchError, match="sha256: qemu comes to "):
        guest.measure(1, [PEER], lambda _line: None)
