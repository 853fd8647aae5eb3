# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's shell on a guest's console, ours and QEMU's, for benches that type commands and wait for what they print."""

from __future__ import annotations

import json
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from splitvisor.bench.boot import APPEND, RUN_SECONDS
from splitvisor.bench.peers import BenchError, Peer
from splitvisor.guests.fetch import GuestError, fetch, resolve

CHUNK_BYTES = 64 << 10
SEEN_BYTES = 64 << 10
QEMU_START_S = 20.0
QEMU_RAM = "memory-backend-memfd"
"""The kind of QEMU's RAM, which its mapping is named after: in memory, as ours is."""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Shell:
    """A guest's shell.

    Args:
        read: descriptor of what the console prints.
        write: descriptor of what is typed.
        pids: the processes that run the guest, by their part; may be empty until the guest has printed something.
    """

    def __init__(self, read: int, write: int, pids: Callable[[], dict[str, int]]) -> None:
        self._read, self._write, self.pids = read, write, pids
        self._seen = b""
        self.received = 0
        """Bytes of output so far."""
        self.found: re.Match[str]
        """What expect() matched last."""

    def type(self, text: str) -> None:
        """Send to the guest."""
        os.write(self._write, text.encode())

    def line(self, command: str, pattern: str) -> None:
        """Type a command and wait for a line of its output. Raises BenchError."""
        self.type(command + "\n")
        self.expect(pattern)

    def expect(self, pattern: str) -> None:
        """Wait for a line that is all pattern, or ends with it after the kernel's time stamp. Raises BenchError."""
        wanted = re.compile(rf"^(?:\[[ \d.]+\] .*)?{pattern}\r?$", re.MULTILINE)
        deadline = time.monotonic() + RUN_SECONDS
        while True:
            match = wanted.search(self._seen.decode(errors="replace"))
            if match is not None:
                self.found = match
                self._seen = b""
                return
            self._seen = (self._seen + self.more(deadline, pattern))[-SEEN_BYTES:]

    def pour(self, command: str, last_line: str) -> None:
        """Type a command that prints much and wait for its last line, at little cost per byte. Raises BenchError."""
        self.type(command + "\n")
        end, tail = f"\n{last_line}\r\n".encode(), b""
        deadline = time.monotonic() + RUN_SECONDS
        while end not in tail:
            data = self.more(deadline, last_line)
            tail = tail[-len(end) :] + data
        self._seen = b""

    def more(self, deadline: float, wanted: str) -> bytes:
        """Wait for output until a time of time.monotonic(); wanted: for the BenchError of a guest that writes nothing."""
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self._read], [], [], left)[0]:
            raise BenchError(f"the guest did not write {wanted!r} in time")
        data = os.read(self._read, CHUNK_BYTES)
        if not data:
            raise BenchError(f"the guest ended without writing {wanted!r}")
        self.received += len(data)
        return data

    def cpu_seconds(self) -> float:
        """CPU time of the guest's processes so far, the terminal's included."""
        return sum(cpu_seconds(pid) for pid in self.pids().values())


def guests_at_hand(say: Callable[[str], None]) -> None:
    """Fetch the guests. Raises BenchError."""
    try:
        fetch(say)
    except GuestError as error:
        raise BenchError(str(error)) from error


@contextmanager
def own_shell(
    directory: Path,
    memory: str = "512M",
    snapshot: Path | None = None,
    initrd: str = "debian",
    options: Sequence[str] = (),
    life_s: int = RUN_SECONDS,
) -> Iterator[Shell]:
    """Boot Debian to its shell with `splitvisor run`, whose pipes are the terminal.

    Args:
        directory: for its sockets, empty; a short path.
        memory: RAM of the guest.
        snapshot: go on from there instead.
        initrd: the guest's, as `./dev guests` lists it.
        options: further ones of the command.
        life_s: after which the guest is ended, whatever it does.
    """
    guest = ["--from", str(snapshot)] if snapshot is not None else [
        "--kernel", str(resolve("kernel", "debian")), "--memory", memory, "--initrd", str(resolve("initrd", initrd)),
        "--append", APPEND,
    ]  # fmt: skip
    command = [sys.executable, "-m", "splitvisor", "run", *guest, *options, "--timeout", str(life_s)]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(directory)}

    def pids() -> dict[str, int]:
        account = next(directory.glob("splitvisor-*/run.json"), None)
        if account is None:
            raise BenchError("`splitvisor run` left no run.json; it did not start its services")
        return {**json.loads(account.read_text())["pids"], "run": run.pid}

    pipe = subprocess.PIPE
    complaints = directory / "run.stderr"
    with (
        complaints.open("wb") as stderr,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=stderr, env=environment) as run,
        _ended(run),
    ):
        assert run.stdin is not None
        assert run.stdout is not None
        try:
            yield Shell(run.stdout.fileno(), run.stdin.fileno(), pids)
        except BenchError as error:
            said = _last_lines(complaints)
            raise BenchError(f"{error}: {said}") from error


@contextmanager
def qemu_shell(
    directory: Path, peer: Peer, memory: str = "512M", initrd: str = "debian", options: Sequence[str] = ()
) -> Iterator[Shell]:
    """Boot the same guest with a QEMU, its spapr-vty on a unix socket. Other arguments as own_shell() has them."""
    path = directory / "console.sock"
    command = [
        *peer.command(f"unix:{path}", ["x-vof=on", "memory-backend=ram"]),
        "-object", f"{QEMU_RAM},id=ram,size={memory}",
        "-m", memory, "-kernel", str(resolve("kernel", "debian")), "-initrd", str(resolve("initrd", initrd)), "-append", APPEND,
        *options,
    ]  # fmt: skip
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(QEMU_START_S)
        complaints = directory / "qemu.stderr"
        with (
            complaints.open("wb") as stderr,
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr) as qemu,
            _ended(qemu),
        ):
            try:
                terminal, _ = listener.accept()
            except TimeoutError:
                said = _last_lines(complaints)
                raise BenchError(f"{peer.program} did not start within {QEMU_START_S:.0f} s: {said}") from None
            with terminal:
                yield Shell(terminal.fileno(), terminal.fileno(), lambda: {"qemu": qemu.pid})


def _last_lines(complaints: Path) -> str:
    return " / ".join(complaints.read_text(errors="replace").splitlines()[-3:]) or "it says nothing"


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, in seconds of 1/100."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def ready_shells(shells: Sequence[Shell]) -> None:
    """Wait until each shell answers."""
    for shell in shells:
        shell.line("echo warm$((1+1))", "warm2")
