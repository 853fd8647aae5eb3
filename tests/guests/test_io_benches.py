# SPDX-License-Identifier: GPL-2.0-or-later
"""The benches of disks and networks measure a guest of QEMU; no figure is judged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from splitvisor.bench import disk, net, versus
from splitvisor.bench.versus import OURS, THEIRS, Boot, Figure, compare
from splitvisor.guests.commands import Commands
from tests.guests.harness import Guests

CHOSEN = ("random_read_1", "random_write_16", "sequential_read", "tcp_sent", "tcp_received", "ping")


@pytest.fixture
def boot(guests: Guests, qemu: str, tmp_path: Path) -> Boot:
    """QEMU's guest with a disk and a network."""
    del guests, qemu
    if shutil.which("iperf3") is None:
        pytest.skip("there is no iperf3")
    image = tmp_path / "disk.raw"
    disk.make_images(image)
    return versus.guests((), [*disk.qemu_disk(image), *net.QEMU_NETWORK])[THEIRS]


def test_each_kind_of_figure_is_measured_and_the_ratio_is_how_many_times_as_good(boot: Boot) -> None:
    def prepare(commands: Commands) -> None:
        disk.prepare(commands)
        net.prepare(commands)

    said: list[str] = []
    with net.iperf_server() as port:
        figures = [figure for figure in (*disk.figures(1), *net.figures(port, 1)) if figure.name in CHOSEN]
        found = compare({THEIRS: boot}, prepare, figures, 1, said.append)
    assert tuple(found) == CHOSEN
    assert len(said) == len(CHOSEN)
    assert all(each["medians"][THEIRS] > 0 for each in found.values())
    assert not any("ratio" in each for each in found.values())


def test_ratios_say_how_many_times_as_good_ours_is() -> None:
    assert Figure("rate", "", "/s", lambda _: 0.0, 1.0).ratio(ours=30, theirs=20) == 1.5
    assert Figure("latency", "", "us", lambda _: 0.0, 1.0, less_is_better=True).ratio(ours=30, theirs=45) == 1.5
    assert list(versus.guests((), ())) == [OURS, THEIRS]
    assert list(versus.guests((), None)) == [OURS]
