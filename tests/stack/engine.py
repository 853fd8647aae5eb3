# SPDX-License-Identifier: GPL-2.0-or-later
"""A container engine of the tests' own, on a machine that needs to have none running, and without a registry.

dockerd gets its own data, sockets and process file, and is told to leave the machine's network alone. Its base image is made
from Debian packages and kept, with the layers that were built from it, in ~/.cache/splitvisor/stack: a second run is quick.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from splitvisor.devtools import debian_root
from splitvisor.devtools.debian_root import CERTIFICATES, PATH, make_root

START_SECONDS = 180.0
"""For an answer of the engine. It bounds a hang: on a machine that does everything at once some have taken more than a minute."""
BUILD_SECONDS = 900.0
PYTHON_IMAGE = "python:3.11-slim"
_PROGRAMS = ("dockerd", "docker-compose")
_SUITE = "bookworm"
_PACKAGES = "ca-certificates,python3,python3-pip,python3-venv"
_BASE_FORMAT = 1
"""Raised when the base image is made in another way: the cached one is then not used."""


def why_not() -> str:
    """Return why this machine cannot run the stack, in one line; an empty text when it can."""
    if reason := debian_root.why_not():
        return reason
    missing = [program for program in _PROGRAMS if shutil.which(program, path=PATH) is None]
    if missing:
        return f"there is no {', '.join(missing)}; apt-get install docker.io docker-compose"
    release = platform.freedesktop_os_release()
    if release.get("VERSION_CODENAME") != _SUITE:
        return f"the base image is made on Debian {_SUITE}, and this is {release.get('PRETTY_NAME', 'something else')}"
    return ""


class Engine:
    """A running dockerd with the base image. Skips the test, with the reason, where that cannot be had."""

    def __init__(self) -> None:
        if reason := why_not():
            pytest.skip(f"no container engine: {reason}")
        self._cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "splitvisor" / "stack"
        self._cache.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self._cache / "lock")
        _end_left_over(self._cache / "data")
        self.directory = Path(tempfile.mkdtemp(prefix="sv-docker-", dir="/tmp"))
        address = f"unix://{self.directory}/docker.sock"
        self.environment = {**os.environ, "PATH": PATH, "DOCKER_HOST": address, "DOCKER_BUILDKIT": "0"}
        self.environment.pop("DOCKER_CONTEXT", None)
        self._log = (self.directory / "log").open("wb")
        self._process = subprocess.Popen(
            [
                "dockerd", "--data-root", str(self._cache / "data"), "--exec-root", str(self.directory / "exec"),
                "--pidfile", str(self.directory / "pid"), "-H", address,
                "--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false",
            ],
            env=self.environment, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True,
        )  # fmt: skip
        try:
            self._wait_ready()
            self.remove_everything()
            # Images of sources of long ago; what is pruned too much is built again.
            self.docker("image", "prune", "--force", "--filter", "until=168h")
            self._make_base()
        except BaseException:
            self.close()
            raise

    def docker(self, *arguments: str, seconds: float = START_SECONDS) -> str:
        """Run the client; return what it prints. Fails the test when it fails."""
        return self.command(["docker", *arguments], seconds=seconds).stdout

    def command(
        self, command: Sequence[str], *, seconds: float = START_SECONDS, check: bool = True, directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """Run a program that talks to this engine."""
        done = subprocess.run(
            command, env={**self.environment, **(environment or {})}, cwd=directory, capture_output=True, text=True,
            timeout=seconds, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"{' '.join(command)}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done

    def inspect(self, container: str) -> dict[str, Any]:
        """Return what the engine knows of a container."""
        [found] = json.loads(self.docker("inspect", container))
        return dict(found)

    def remove_everything(self) -> None:
        """Remove all containers, volumes and networks, also those that a killed run left; images stay."""
        if containers := self.docker("ps", "--all", "--quiet").split():
            self.docker("rm", "--force", "--volumes", *containers)
        if volumes := self.docker("volume", "ls", "--quiet").split():
            self.docker("volume", "rm", "--force", *volumes)
        self.docker("network", "prune", "--force")

    def left_over(self) -> list[str]:
        """Name the containers, volumes and networks that are there beside the engine's own."""
        networks = self.docker("network", "ls", "--format", "{{.Name}}").split()
        return [
            *self.docker("ps", "--all", "--quiet").split(),
            *self.docker("volume", "ls", "--quiet").split(),
            *(name for name in networks if name not in {"bridge", "host", "none"}),
        ]

    def close(self) -> None:
        """End the engine and remove what it had, but for the cache."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._log.close()
        # dockerd leaves its own network namespace mounted, and its data when it was killed or found them mounted.
        _unmount(self.directory / "exec/netns/default")
        _unmount(self._cache / "data")
        shutil.rmtree(self.directory, ignore_errors=True)
        self._lock.close()

    def mounts(self) -> list[str]:
        """What is mounted below this engine's directories."""
        places = (f"{self.directory}/", f"{self._cache}/")
        mounts = (line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines())
        return [mount for mount in mounts if mount.startswith(places)]

    def processes(self) -> list[str]:
        """The command lines of this engine's processes: all of them name its directory."""
        commands = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # It has ended meanwhile.
            if str(self.directory) in command:
                commands.append(command)
        return commands

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while self.command(["docker", "version"], check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                last = (self.directory / "log").read_text(errors="replace").splitlines()[-1:]
                pytest.skip(f"no container engine: dockerd does not start here: {' '.join(last)}")
            time.sleep(0.1)

    def _make_base(self) -> None:
        """Have the base image: the cache's, or a new one."""
        stamp = self._cache / "base.json"
        wanted = {"format": _BASE_FORMAT, "packages": _PACKAGES, "certificates": CERTIFICATES.stat().st_mtime_ns}
        known = self.command(["docker", "image", "inspect", PYTHON_IMAGE], check=False).returncode == 0
        if known and stamp.exists() and json.loads(stamp.read_text()) == wanted:
            return
        with tempfile.TemporaryDirectory(prefix="base-", dir=self._cache) as directory:
            root = Path(directory) / "root"
            make_root(root, _SUITE, _PACKAGES)
            archive = Path(directory) / "base.tar"
            self.command(["tar", "-C", str(root), "-cf", str(archive), "."])
            self.docker("import", str(archive), PYTHON_IMAGE)
        stamp.write_text(json.dumps(wanted))


def _end_left_over(data: Path) -> None:
    """End the engine that a killed run of the tests has left; who holds the cache's lock has no other."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue  # It has ended meanwhile.
        if os.fsencode(data) in words and words[0].endswith(b"dockerd"):
            left = os.pidfd_open(int(path.parent.name))
            signal.pidfd_send_signal(left, signal.SIGTERM)
            select.select([left], [], [], START_SECONDS)
            os.close(left)
    _unmount(data)


def _unmount(path: Path) -> None:
    """Unmount a directory, if it is mounted."""
    subprocess.run(["umount", str(path)], check=False, capture_output=True)


def _locked(path: Path) -> IO[str]:
    """Return the cache's lock, held. Another run of the tests may have it: this one waits for its turn, but not for ever."""
    lock = path.open("w")
    deadline = time.monotonic() + BUILD_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                lock.close()
                pytest.skip(f"no container engine: another run holds {path}")
            time.sleep(0.5)
        else:
            return lock
