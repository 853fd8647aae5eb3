# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs `splitvisor run` as a user does: a real process, its console on a pipe or on a pseudo terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
BOOT_SECONDS = 90.0
"""More than ten times what a boot takes, for busy machines."""
STEP_SECONDS = 30.0


class Console:
    """A run in progress and what its console has shown. prefix: what to put before the command, so that it runs elsewhere."""

    def __init__(self, arguments: Sequence[str], runtime: Path, *, terminal: bool = False, prefix: Sequence[str] = ()) -> None:
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "PYTHONPATH": str(ROOT)}
        self.runtime = runtime
        self.report_file = runtime / "report.json"
        report = () if "--report" in arguments else ("--report", str(self.report_file))
        command = [*prefix, sys.executable, "-m", "splitvisor", "run", *report, *arguments]
        if terminal:
            self._read, slave = pty.openpty()
            self._write = self._read
            # A session of its own, whose terminal it is: ^C is a signal as long as the terminal is not raw.
            self.process = subprocess.Popen(
                ["setsid", "--ctty", *command], stdin=slave, stdout=slave, stderr=slave, env=environment
            )
            os.close(slave)
        else:
            self._read, output = os.pipe()
            input_read, self._write = os.pipe()
            self.process = subprocess.Popen(
                command, stdin=input_read, stdout=output, stderr=subprocess.PIPE, env=environment, start_new_session=True
            )
            os.close(output)
            os.close(input_read)
        self.text = ""
        self._position = 0

    def type(self, text: str) -> None:
        """Send to the guest."""
        data = text.encode()
        while data:
            data = data[os.write(self._write, data) :]

    def end_input(self) -> None:
        """Close the pipe that the guest's input comes from."""
        os.close(self._write)
        self._write = -1

    def close_output(self) -> None:
        """Close the pipe that the guest's output goes to."""
        os.close(self._read)
        self._read = -1

    def expect(self, pattern: str, seconds: float = STEP_SECONDS) -> re.Match[str]:
        """Wait until the console shows pattern after what was matched before; fail when it does not in time."""
        deadline = time.monotonic() + seconds
        while True:
            match = re.compile(pattern, re.MULTILINE).search(self.text, self._position)
            if match is not None:
                self._position = match.end()
                return match
            if not self._read_more(deadline):
                raise AssertionError(f"no {pattern!r} on the console, which shows:\n{self.text[-3000:]}\n{self._errors()}")

    def wait(self, seconds: float = STEP_SECONDS) -> int:
        """Wait for the end; return the exit status."""
        deadline = time.monotonic() + seconds
        while self._read != -1 and self._read_more(deadline):
            pass
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    def pids(self) -> dict[str, int]:
        """The service processes of this run."""
        [run_file] = self.runtime.glob("splitvisor-*/run.json")
        pids: dict[str, int] = json.loads(run_file.read_text())["pids"]
        return pids

    def service(self, name: str) -> str:
        """The gRPC target of one of this run's services."""
        [run_file] = self.runtime.glob("splitvisor-*/run.json")
        address: str = json.loads(run_file.read_text())["services"][name]
        return address

    def splitvisor(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command of splitvisor, as the user of this run."""
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(self.runtime), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "splitvisor", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=BOOT_SECONDS, check=False)

    def report(self) -> dict[str, Any]:
        """The account of the run, once it has ended."""
        report: dict[str, Any] = json.loads(self.report_file.read_text())
        return report

    def close(self) -> None:
        """End the run if it has not; let go of what is open."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STEP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()
        for descriptor in {self._read, self._write} - {-1}:
            os.close(descriptor)
        self._read = self._write = -1

    def _read_more(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._read, 1 << 16)
        except OSError:  # A pseudo terminal whose other side has gone.
            return False
        self.text += data.decode(errors="replace")
        return bool(data)

    def _errors(self) -> str:
        if self.process.stderr is None or self.process.poll() is None:
            return ""
        return self.process.stderr.read().decode(errors="replace")


@dataclass(frozen=True)
class Guests:
    """Files of the real guests."""

    kernel: Path
    shell: Path
    """An initramfs whose /init prints a marker and starts a shell."""
    poweroff: Path
    """One that prints the marker and powers off."""
    slots: Path
    """The shell's with Debian's tools and modules for devices that come and go."""
    io: Path
    """The shell's with drivers for disks and networks and the tools of splitvisor/guests/io_guest.py."""
    kexec: Path
    """The shell's with Debian's kexec."""
    rng_driver: Path
    """Debian's kernel module for H_RANDOM."""
    vterm_driver: tuple[Path, ...]
    """Debian's kernel modules for vty-servers, in the order in which they are loaded."""
    slof: Path
    vof: Path
    grub: Path
    """Not there when the machine has no grub-mkimage."""
