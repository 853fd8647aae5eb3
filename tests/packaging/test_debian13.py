# SPDX-License-Identifier: GPL-2.0-or-later
"""The wheel on Debian 13 with its own Python 3.13: a fresh root, the versions of the lock, a user without rights."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitvisor.devtools.debian_root import MAKE_SECONDS, PATH, make_root, why_not
from splitvisor.guests.fetch import GuestError, fetch, resolve
from tests.packaging.environments import INSTALL_SECONDS, RUN_SECONDS, constraints
from tests.packaging.uses import boots_linux, runs_the_demo_guest, writes_a_device_whose_tests_pass

pytestmark = [pytest.mark.long, pytest.mark.timeout(MAKE_SECONDS + 4 * INSTALL_SECONDS)]

NOBODY = "65534:65534"
HOME = "/home/somebody"
# In a mount and a process namespace of its own, so that nothing is left mounted or running, however it ends.
INSIDE = """
mount -t proc proc "$0/proc"
mount --bind /dev "$0/dev"
mount -t tmpfs -o mode=1777 tmpfs "$0/dev/shm"
user=$1 directory=$2
shift 2
exec chroot --userspec="$user" "$0" env --chdir="$directory" "$@"
"""


class Debian:
    """A root with an environment that has the wheel.

    Args:
        root: does not exist yet.
        wheel: what is installed.
    """

    def __init__(self, root: Path, wheel: Path) -> None:
        self.root = root
        self.work = Path(HOME)
        make_root(root, "trixie", "ca-certificates,python3,python3-venv")
        (root / HOME[1:]).mkdir(mode=0o777)
        (root / HOME[1:]).chmod(0o777)
        for file in (wheel, constraints(root.parent)):
            shutil.copy(file, root / "tmp")
        self._run("0:0", HOME, "python3", "-m", "venv", "/opt/splitvisor")
        pip = ("/opt/splitvisor/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        what = ("--constraint", "/tmp/constraints.txt", f"/tmp/{wheel.name}[run,testing]")
        done = self._run("0:0", HOME, *pip, *what, seconds=INSTALL_SECONDS)
        assert done.returncode == 0, done.stderr

    def run(
        self, program: str, *arguments: str | Path, typed: str = "", directory: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one of the environment's programs, as a user without rights."""
        command = (f"/opt/splitvisor/bin/{program}", *map(str, arguments))
        return self._run(NOBODY, str(directory or self.work), *command, typed=typed)

    def _run(
        self, user: str, directory: str, *command: str, typed: str = "", seconds: float = RUN_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        return subprocess.run(
            [*unshare, "sh", "-ec", INSIDE, str(self.root), user, directory, *command], input=typed, capture_output=True,
            text=True, timeout=seconds, check=False, env={"PATH": PATH, "HOME": HOME, "LANG": "C.UTF-8"},
        )  # fmt: skip


@pytest.fixture(scope="module")
def debian(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debian]:
    """Debian 13 with the wheel."""
    if reason := why_not():
        pytest.skip(f"no Debian 13: {reason}")
    root = tmp_path_factory.mktemp("debian13") / "root"
    yield Debian(root, wheel)
    shutil.rmtree(root)


def test_it_is_debian_13_with_its_own_python(debian: Debian) -> None:
    assert (debian.root / "etc/debian_version").read_text().startswith("13")
    code = "import os, sys; print('%d.%d' % sys.version_info[:2], os.path.realpath(sys.executable), os.getuid())"
    assert debian.run("python", "-c", code).stdout == "3.13 /usr/bin/python3.13 65534\n"


def test_the_demo_guest_runs_on_debian_13(debian: Debian) -> None:
    runs_the_demo_guest(debian)


def test_a_new_device_passes_its_tests_on_debian_13(debian: Debian) -> None:
    writes_a_device_whose_tests_pass(debian)


def test_debians_kernel_boots_on_debian_13(debian: Debian) -> None:
    try:
        fetch(print)
    except GuestError as error:
        pytest.skip(f"no real guests: {error}")
    for kind in ("kernel", "initrd"):
        shutil.copy(resolve(kind, "debian"), debian.root / "tmp" / kind)
        (debian.root / "tmp" / kind).chmod(0o644)
    boots_linux(debian, "/tmp/kernel", "/tmp/initrd")
