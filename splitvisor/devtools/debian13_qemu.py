# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU 10.0 of Debian 13, for benches: its package in a root of its own, beside the machine's QEMU.

    python -m splitvisor.devtools.debian13_qemu DIRECTORY

makes the root and a program that runs its QEMU from there, by the root's own dynamic linker and libraries: neither chroot nor
rights are needed to run it. What is there already is kept. Prints the program's path.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from splitvisor.devtools.debian_root import DebianRootError, make_root, why_not

SUITE, PACKAGE, VERSION = "trixie", "qemu-system-ppc", "10.0"
PROGRAM = "qemu-system-ppc64"
_VERSION_S = 60.0
_SCRIPT = f"""#!/bin/sh
# Made by ./dev qemu10: QEMU of Debian 13, run from its root.
root=$(dirname "$(readlink -f "$0")")/root
export QEMU_MODULE_DIR="$root/usr/lib/x86_64-linux-gnu/qemu"
exec "$root/lib64/ld-linux-x86-64.so.2" --library-path "$root/usr/lib/x86_64-linux-gnu" \\
    "$root/usr/bin/{PROGRAM}" -L "$root/usr/share/qemu" "$@"
"""


def make(directory: Path) -> Path:
    """Make the program in a directory, unless it is there, and return its path. Raises DebianRootError."""
    program, root, new = directory / PROGRAM, directory / "root", directory / "root.new"
    if _runs(program):
        return program
    if reason := why_not():
        raise DebianRootError(f"QEMU {VERSION} of Debian 13 cannot be had: {reason}", "give benches the --qemu that you have")
    directory.mkdir(parents=True, exist_ok=True)
    for old in (root, new):
        shutil.rmtree(old, ignore_errors=True)
    make_root(new, SUITE, PACKAGE)
    new.rename(root)
    program.write_text(_SCRIPT)
    program.chmod(0o755)
    if not _runs(program):
        raise DebianRootError(f"{program} does not run, or is no QEMU {VERSION}", f"remove {directory}, and try again")
    return program


def _runs(program: Path) -> bool:
    """Whether it is a QEMU of the version."""
    if not program.exists():
        return False
    try:
        done = subprocess.run(
            [program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_VERSION_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return f"version {VERSION}." in done.stdout


if __name__ == "__main__":
    try:
        print(make(Path(sys.argv[1])))
    except DebianRootError as error:
        sys.exit(f"dev: {error}")
