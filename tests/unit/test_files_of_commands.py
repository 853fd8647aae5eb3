# SPDX-License-Identifier: GPL-2.0-or-later
"""Every file that a command or a service is told: outputs replace nothing but their like, inputs are not waited for.

The tables below name all of them: a flag that is in none fails a test.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from splitvisor.access.certs import make_authority
from splitvisor.cli.app import make_app
from splitvisor.cli.run import run
from splitvisor.faults.journal import Journal
from splitvisor.recording import RecordingError
from splitvisor.recording.file import RecordingWriter
from splitvisor.service.main import _fields
from splitvisor.service.names import ALL_SERVICE_NAMES

KERNEL = b"\x7fELF\2\1\1\0, a kernel\0"
RECORDING = Path(__file__).parents[1] / "data" / "demo.recording"
RUN: Any = run
IMAGES = ("kernel", "initrd", "firmware")
Act = Callable[[Path], str]
"""Gives a command a file; returns what it says."""


def command(*arguments: str) -> Act:
    """A command of typer's, which must refuse the file that takes the place of {}."""

    def act(path: Path) -> str:
        result = CliRunner().invoke(make_app(arguments[0]), [argument.format(path) for argument in arguments])
        assert result.exit_code == 2, (result.output, result.exception)
        return result.stderr

    return act


def running(flag: str) -> Act:
    """`splitvisor run`, the same."""

    def act(path: Path) -> str:
        with pytest.MonkeyPatch.context() as patch:
            said: list[str] = []
            patch.setattr("builtins.print", lambda text="", **_: said.append(str(text)))
            # Nothing of the run itself: it would end at once.
            assert RUN(**{flag: str(path) if flag in IMAGES else path}, timeout=0.1) == 2
        return "".join(f"{line}\n" for line in said)

    return act


def recording(path: Path) -> str:
    """The file of --record is cpu_service's."""
    with pytest.raises(RecordingError) as caught:
        RecordingWriter(path)
    return f"{caught.value}\n"


def journal(path: Path) -> str:
    """That of --journal is the proxy's, which puts its name before the reason."""
    with pytest.raises(OSError) as caught:  # noqa: PT011  # as the table says
        Journal(path)
    return f"{path}: {caught.value.strerror}\n"


OUTPUTS: dict[str, Act] = {
    "run --report": running("report"),
    "run --log-file": running("log_file"),
    "run --record": recording,
    "vm save FILE": command("vm", "save", "guest", "{}"),
    "dt export --output": command("dt", "export", "guest", "--output", "{}"),
    "bench all --plot": command("bench", "all", "--only", "start", "--plot", "{}"),
    "fault proxy --journal": journal,
    **{
        f"bench {name} --json": command("bench", name, "--json", "{}")
        for name in (
            "boot",
            "guest",
            "record",
            "trap",
            "clock",
            "slof",
            "console",
            "memory",
            "start",
            "snapshot",
            "many",
            "disk",
            "net",
            "all",
        )
    },
}
"""What is written as a whole, or added to."""
INPUTS: dict[str, Act] = {
    "vm restore FILE": command("vm", "restore", "{}", "--cpu", "127.0.0.1:1"),
    "dt validate --file": command("dt", "validate", "--file", "{}"),
    "certs show PATH": command("certs", "show", "{}"),
    "record show FILE": command("record", "show", "{}"),
    "record stats FILE": command("record", "stats", "{}"),
    "record diff BEFORE": command("record", "diff", "{}", str(RECORDING)),
    "record diff AFTER": command("record", "diff", str(RECORDING), "{}"),
    "replay FILE": command("replay", "{}", "--as", "vio"),
    "fault check SCENARIO": command("fault", "check", "{}"),
    "vm start --machine": command("vm", "start", "guest", "--machine", "{}"),
    **{f"run --{name}": running(name) for name in ("kernel", "initrd", "firmware", "machine", "fault")},
    "run --from": running("snapshot"),
}
"""What is read by the command, which may be a pipe."""
ELSEWHERE = frozenset({
    # Kept by services: tests/unit/test_vio_nvram.py, test_vio_transcript.py, tests/component/test_tree_store.py.
    "run --nvram", "vm start --nvram", "run --store", "service hcall --store", "run --transcripts", "service vio --transcripts",
    "service cpu --ram-dir",
    # Disks: tests/component/test_raw_disk.py, test_nbd_disk.py.
    "run --disk", "run --cdrom", "vm start --disk", "vm start --cdrom", "vm cd-insert IMAGE",
    # Read by services: tests/unit/test_loader.py, test_gateway_settings.py.
    "vm start --kernel", "vm start --initrd", "vm start --firmware",
    "service gateway --tokens", "service gateway --http-tls-cert", "service gateway --http-tls-key",
    "service fault --scenario", "service fault --journal", "fault proxy --scenario",
    # Directories that are made or must be empty, and a socket: test_certs.py, tests/sdk, test_sockets.py.
    "certs init DIRECTORY", "certs issue AUTHORITY", "certs issue --out", "new-device --directory", "replay --trees",
    # Not files.
    "dt show PATH", "dt get ARGUMENTS",
})  # fmt: skip


def parameters(group: Any, path: str = "") -> Iterator[str]:
    """Name every parameter of every command that may be a file."""
    for name, each in group.commands.items():
        if hasattr(each, "commands"):
            yield from parameters(each, f"{path}{name} ")
            continue
        for parameter in each.params:
            if any(word in (parameter.metavar or "") for word in ("FILE", "DIR", "PATH", "SOCKET", "PLACE")) and (
                not parameter.name.startswith("tls")
            ):
                option = parameter.opts[0]
                yield f"{path}{name} {option if option.startswith('-') else option.upper()}"


def test_every_file_of_a_command_line_is_in_a_table() -> None:
    known = OUTPUTS.keys() | INPUTS.keys() | ELSEWHERE
    named = set(parameters(get_command(make_app())))
    for service in ALL_SERVICE_NAMES:
        for option in _fields(service.load().Options):
            if option.convert is Path or option.metavar in ("FILE", "DIR", "PLACE"):
                named.add(f"service {service.command} {option.flag}")
    assert named - known == set()
    assert known - named == set()


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_replaces_no_file_that_is_something_else(name: str, tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(KERNEL)
    path.chmod(0o644)
    before = path.stat()
    said = OUTPUTS[name](path)
    assert said.count("\n") == 1
    assert str(path) in said
    assert "it is there and is not" in said or "is there and is not a recording" in said
    assert path.read_bytes() == KERNEL
    after = path.stat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)
    assert os.listdir(tmp_path) == ["vmlinux"]


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.mkdir(), "is not a regular file but a directory"),
        (lambda path: path.symlink_to("gone/file"), "No such file or directory"),
        (os.mkfifo, "pipe"),
    ],
)  # fmt: skip
def test_an_output_that_cannot_be_written_is_told_in_one_line(
    name: str, make: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    make(path)
    said = OUTPUTS[name](path)
    assert said.count("\n") == 1
    assert str(path) in said
    assert words in said


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("kind", ["device", "directory", "nothing"])
def test_an_input_that_cannot_be_read_is_told_in_one_line(name: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    if kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "directory":
        path.mkdir()
        make_authority(path / "unused", "unused")
    said = INPUTS[name](path)
    assert said.count("\n") == 1
    assert str(path) in said


@pytest.mark.parametrize("name", [name for name in INPUTS if name.startswith("run ")])
def test_a_pipe_counts_against_the_timeout_of_a_run(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    flag = {"--from": "snapshot"}.get(name.split()[1], name.split("--")[1])
    assert RUN(**{flag: str(path) if flag in IMAGES else path}, timeout=0.1) == 124
    assert capsys.readouterr().err == f"splitvisor run: {path}: the pipe's end did not come in time: 0.1 s\n"
