# SPDX-License-Identifier: GPL-2.0-or-later
"""Which QEMUs a bench runs, and what becomes of their figures."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from splitvisor.bench.peers import PROGRAM, BenchError, Peer, compare, find
from splitvisor.cli.bench import bench
from splitvisor.devtools import debian13_qemu, debian_root
from splitvisor.devtools.debian_root import DebianRootError


def _program(directory: Path, name: str, script: str) -> str:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_the_machines_own_comes_first_and_others_have_the_version_that_they_tell() -> None:
    own = shutil.which(PROGRAM)
    if own is None:
        pytest.skip("there is no qemu-system-ppc64; it is in the package qemu-system-ppc")
    assert find(True) == (Peer("qemu", PROGRAM),)
    first, second = find(True, [own])
    assert (first.name, second.program) == ("qemu", own)
    assert second.name.removeprefix("qemu ").replace(".", "").isdigit()
    assert find(False) == ()


def test_two_of_one_version_have_two_names_and_one_that_is_named_twice_runs_once(tmp_path: Path) -> None:
    one, other = (_program(tmp_path, name, "echo QEMU emulator version 10.0.13 of somebody") for name in "ab")
    assert [peer.name for peer in find(False, [one, other, one])] == ["qemu 10.0", "qemu 10.0'"]


@pytest.mark.parametrize(
    ("script", "said"), [("echo GNU bash, release 5", "it says nothing"), ("echo what? >&2; exit 3", "what?")]
)
def test_a_program_that_is_no_qemu_is_refused_in_one_line(tmp_path: Path, script: str, said: str) -> None:
    done = CliRunner().invoke(bench, ["boot", "--qemu", _program(tmp_path, "program", script)])
    assert done.exit_code == 1
    [line] = done.stderr.splitlines()
    assert line.endswith(f"program is no QEMU: --version gives {said}")


def test_a_program_that_is_not_there_is_refused_before_anything_runs(tmp_path: Path) -> None:
    for command in ("boot", "guest", "slof", "console", "disk", "net", "memory", "snapshot"):
        done = CliRunner().invoke(bench, [command, "--qemu", str(tmp_path / "nothing")])
        assert done.exit_code == 1
        assert done.stderr.splitlines() == [
            f"splitvisor bench {command}: there is no program {tmp_path}/nothing; `./dev qemu10` makes QEMU 10.0 of Debian 13"
        ]


def test_ratios_are_told_of_each_peer_and_of_the_first_by_their_old_names() -> None:
    said: list[str] = []
    figures = compare([2.0, 4.0, 3.0], {"qemu": [4.0, 2.0], "qemu 10.0": [1.0]}, said.append)
    assert (figures["ratio"], figures["ratio_of_medians"], figures["qemu_seconds"]) == (1.0, 1.0, [4.0, 2.0])
    assert figures["peers"]["qemu 10.0"] == {"seconds": [1.0], "ratio": 2.0, "ratio_of_medians": 3.0}
    assert [line.split(":")[0] for line in said] == ["qemu", "ratio", "qemu 10.0", "ratio"]
    assert compare([1.0], {}, said.append) == {}


def test_the_peer_is_one_vcpu_in_one_thread() -> None:
    command = Peer("qemu", "/a/qemu").command("unix:/s", ["x-vof=on"])
    assert command[0] == "/a/qemu"
    assert {"tcg,thread=single", "unix:/s"} <= set(command)
    assert command[-1].endswith(",x-vof=on")
    assert "x-vof=on" not in Peer("qemu", "/a/qemu").command(machine=())[-1]


def test_a_work_that_there_is_not_is_bad_usage() -> None:
    done = CliRunner().invoke(bench, ["guest", "--only", "nothing"])
    assert done.exit_code == 2
    assert done.stderr.splitlines()[0].endswith("there is no work nothing; give one of " + ", ".join(_works()))


def _works() -> list[str]:
    from splitvisor.bench.guest import WORKS

    return [work.name for work in WORKS]


def test_a_root_that_cannot_be_made_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian13_qemu, "why_not", lambda: "debootstrap needs root")
    with pytest.raises(DebianRootError, match=r"^QEMU 10.0 of Debian 13 cannot be had: debootstrap needs root; give benches"):
        debian13_qemu.make(tmp_path / "qemu10")


def test_a_mirror_that_does_not_answer_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := debian_root.why_not():
        pytest.skip(reason)
    monkeypatch.setattr(debian_root, "mirror", lambda: f"file://{tmp_path}/no-mirror")
    with pytest.raises(DebianRootError, match=r"^debootstrap trixie failed: .*; is the mirror in the machine's apt sources"):
        debian13_qemu.make(tmp_path / "qemu10")
    assert not (tmp_path / "qemu10" / PROGRAM).exists()


def test_a_qemu_that_is_there_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian13_qemu, "why_not", lambda: "it must not be asked")
    program = _program(tmp_path, PROGRAM, "echo QEMU emulator version 10.0.1")
    assert debian13_qemu.make(tmp_path) == Path(program)
    _program(tmp_path, PROGRAM, "echo QEMU emulator version 9.2.1")
    with pytest.raises(DebianRootError, match="must not be asked"):
        debian13_qemu.make(tmp_path)


def test_a_file_that_cannot_be_run_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    program.chmod(0o755)
    with pytest.raises(BenchError, match="does not run"):
        find(False, [str(program)])
