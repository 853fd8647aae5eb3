# SPDX-License-Identifier: GPL-2.0-or-later
"""Root file systems of Debian, made by debootstrap from the mirror in the machine's own apt sources."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

from splitvisor.errors.problem import ProblemError

MAKE_SECONDS = 900.0
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
"""debootstrap and its kin are not in the PATH of everybody."""
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


class DebianRootError(ProblemError):
    """A root cannot be made here."""


_LEFT_OUT = ("usr/lib/python3*/EXTERNALLY-MANAGED", "var/cache/apt/archives/*.deb", "var/lib/apt/lists/*_*")


def why_not() -> str:
    """Return why this machine cannot make a root, in one line; an empty text when it can."""
    if os.getuid() != 0:
        return "debootstrap needs root"
    if shutil.which("debootstrap", path=PATH) is None:
        return "there is no debootstrap; apt-get install debootstrap"
    if not mirror():
        return "the machine's apt sources name no Debian mirror"
    return ""


def make_root(root: Path, suite: str, packages: str) -> None:
    """Make a root of a suite with some packages, separated by commas. pip there trusts what this machine trusts.

    Raises DebianRootError.
    """
    done = subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={packages}", suite, str(root), mirror()],
        env={**os.environ, "PATH": PATH}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=MAKE_SECONDS,
        check=False,
    )  # fmt: skip
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or ["it says nothing"]
        raise DebianRootError(
            f"debootstrap {suite} failed: {said[-1]}", "is the mirror in the machine's apt sources within reach?"
        )
    if CERTIFICATES.exists():
        trusted = root / CERTIFICATES.relative_to("/")
        trusted.parent.mkdir(parents=True, exist_ok=True)  # Debian 13 has no certificates unless something needs them.
        shutil.copyfile(CERTIFICATES, trusted)
    for pattern in _LEFT_OUT:
        for path in root.glob(pattern):
            path.unlink()


def mirror() -> str:
    """Return the first Debian mirror in the machine's apt sources; an empty text when they name none."""
    for source in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")):
        for line in source.read_text().splitlines():
            key, _, value = line.partition(":")
            if key == "URIs" and "debian" in value:
                return value.split()[0]
    suite = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    for source in (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*.list"))):
        for line in source.read_text().splitlines() if source.exists() else ():
            words = line.split()
            if words[:1] == ["deb"] and suite in words:
                return words[words.index(suite) - 1]
    return ""
