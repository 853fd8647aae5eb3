# SPDX-License-Identifier: GPL-2.0-or-later
"""A whole machine is killed, all its processes at once, while an installed Debian writes: what it was told is written is there.

The host goes on, so what was written is in the image, whatever `cache=` says. First e2fsck of this host replays the journal and
reads the records; then the machine starts again from its disk, and its kernel does the same.
SPLITVISOR_CHAOS_MACHINE_KILLS sets how often, SPLITVISOR_CHAOS_SEED when.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import select
import shutil
import signal
from pathlib import Path

import pytest

from splitvisor.guests.commands import Commands
from tests.disk_tools import listed, need
from tests.disk_tools import run as run_tool
from tests.guests.conftest import Run
from tests.guests.debian_system import BOOT_S, cached_disk, log_in
from tests.guests.harness import STEP_SECONDS, Console

KILLS = int(os.environ.get("SPLITVISOR_CHAOS_MACHINE_KILLS", "1"))
SEED = int(os.environ.get("SPLITVISOR_CHAOS_SEED", "5"))
SLOW_S = 300.0
RECORDS = "/root/records"
LEAST, MOST = 40, 200
"""Acknowledged records before a kill."""
EACH = 4
"""Every so many records there is a file of its own, which gets its name once it is on the disk."""
WRITER = """\
use strict; use IO::Handle;
my ($directory, $each, $number) = @ARGV;
sub keep { my ($file) = @_; $file->flush && $file->sync or die "sync: $!" }
STDOUT->autoflush(1);
open my $log, '>>', "$directory/log" or die "log: $!";
while (++$number) {
    my $record = sprintf "%08d %s %08d\\n", $number, chr(65 + $number % 26) x (1 + $number * 7919 % 9001), $number;
    print $log $record or die "log: $!";
    keep($log);
    if ($number % $each == 0) {
        open my $new, '>', "$directory/new" or die "new: $!";
        print $new $record or die "new: $!";
        keep($new);
        close $new or die "new: $!";
        rename "$directory/new", "$directory/file-$number" or die "rename: $!";
        open my $entries, '<', $directory or die "directory: $!";
        $entries->sync or die "directory: $!";
    }
    print "acknowledged $number\\n";
}
"""
OTHER_LOAD = "(while cp -r /usr/lib/systemd /root/copy && rm -r /root/copy; do :; done) >/dev/null 2>&1 &"
"""Names and inodes come and go without a sync: the journal has much that is not in its place yet."""


def record(number: int) -> bytes:
    """As the guest writes it."""
    return b"%08d %s %08d\n" % (number, bytes([65 + number % 26]) * (1 + number * 7919 % 9001), number)


def kill(console: Console) -> None:
    """End every process of a run at once, as if nothing of it had ever been prepared for that."""
    pids = [*console.pids().values(), console.process.pid]
    handles = [os.pidfd_open(pid) for pid in pids]
    for handle in handles:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    for handle in handles:
        assert select.select([handle], [], [], STEP_SECONDS)[0], "it is gone, and with it its locks"
        os.close(handle)


def check_on_the_host(disk: Path, scratch: Path, acknowledged: list[int]) -> None:
    """Replay the journal in a copy of the file system, check it, and look for the records of each start."""
    part, read = file_system_of(disk, scratch), scratch / "read"
    repaired = run_tool("e2fsck", "-fy", part, check=False)
    assert repaired.returncode in (0, 1), repaired.stdout
    assert "recovering journal" in repaired.stdout, "the machine was in the midst of something"
    clean = run_tool("e2fsck", "-fn", part, check=False)
    assert clean.returncode == 0, repaired.stdout + clean.stdout
    shutil.rmtree(read, ignore_errors=True)
    read.mkdir()
    run_tool("debugfs", "-R", f"rdump {RECORDS} {read}", part)
    for number, last in enumerate(acknowledged):
        expect_records(read / Path(RECORDS).name / str(number), last)


def file_system_of(disk: Path, scratch: Path) -> Path:
    """Return a copy of the disk's second partition."""
    found = listed(disk)
    assert found is not None
    root = found[1][1]
    bounds = (f"skip={root.start}", f"count={root.length}", "iflag=skip_bytes,count_bytes")
    run_tool("dd", f"if={disk}", f"of={scratch / 'part'}", *bounds, "bs=1M", "conv=sparse")
    return scratch / "part"


def expect_records(directory: Path, acknowledged: int) -> None:
    """Have every record that was acknowledged, and behind them what the guest had not told of yet, in its order."""
    log, written, number = (directory / "log").read_bytes(), b"", 0
    while number < acknowledged or len(written) < len(log):
        number += 1
        written += record(number)
        if number == acknowledged:
            assert len(log) >= len(written), f"the log has {len(log)} of the {len(written)} bytes that were acknowledged"
    assert written.startswith(log)
    files = {int(path.name.removeprefix("file-")): path.read_bytes() for path in directory.glob("file-*")}
    assert set(files) >= set(range(EACH, acknowledged + 1, EACH))
    assert [number for number, data in files.items() if data != record(number)] == []


def start(run: Run, disk: Path, cache: str) -> tuple[Console, Commands]:
    """Start the machine from its disk, up to a shell."""
    console = run("--memory", "1G", "--disk", f"{disk},cache={cache}", "--boot", "disk")
    return console, log_in(console)


@pytest.mark.long
@pytest.mark.parametrize("cache", ["writeback", "none"])
def test_what_was_acknowledged_is_there_when_a_whole_machine_was_killed(run: Run, tmp_path: Path, cache: str) -> None:
    need("sfdisk", "e2fsck", "debugfs")
    source, acknowledged = random.Random(SEED), list[int]()
    disk = tmp_path / "debian.disk"
    run_tool("cp", "--sparse=always", cached_disk(), disk)
    for number in range(KILLS):
        console, guest = start(run, disk, cache)
        guest.put("/root/writer", WRITER.encode())
        guest.ok(f"mkdir -p {RECORDS}/{number}; {OTHER_LOAD}")
        console.type(f"perl /root/writer {RECORDS}/{number} {EACH}\n")
        console.expect(rf"^acknowledged {source.randrange(LEAST, MOST)}\r?$", SLOW_S)
        kill(console)
        assert console.wait() == -signal.SIGKILL
        acknowledged.append(max(map(int, re.findall(r"^acknowledged (\d+)\r?$", console.text, re.MULTILINE))))
        check_on_the_host(disk, tmp_path, acknowledged)
    console, guest = start(run, disk, cache)
    for number, last in enumerate(acknowledged):
        wanted = b"".join(map(record, range(1, last + 1)))
        found = guest.ok(f"head -c {len(wanted)} {RECORDS}/{number}/log | sha256sum").split()[0]
        assert found == hashlib.sha256(wanted).hexdigest()
        assert int(guest.ok(f"ls {RECORDS}/{number} | grep -c file-")) >= last // EACH
    assert guest.run("dmesg | grep -E 'I/O error|EXT4-fs error|BUG:|Oops:'").output == ""
    console.type("poweroff\n")
    assert console.wait(BOOT_S) == 0
    ended = run_tool("e2fsck", "-fn", file_system_of(disk, tmp_path), check=False)
    assert ended.returncode == 0, ended.stdout
    for name in ("debian.disk", "part"):  # pytest keeps the directories of the last runs.
        (tmp_path / name).unlink()
