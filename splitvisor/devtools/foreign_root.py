# SPDX-License-Identifier: GPL-2.0-or-later
"""Root file systems of Debian for ppc64el: unpacked here, and set up by their own dpkg, whose programs QEMU's user mode runs.

The kernel learns what to run them with in a user namespace, so that nothing changes for the rest of the machine (binfmt_misc of
Linux 6.7 and later). Where a kernel has it for the whole machine already, as binfmt-support sets it up, that is used.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from splitvisor.devtools.debian_root import PATH, DebianRootError

EMULATOR = "qemu-ppc64le-static"
"""Linked statically: inside a root of another architecture it finds no library."""
UNPACK_S = 120.0
"""For one package."""
_IDS = "0 0 65536\n"
"""The ids of a Debian system, of users and of groups, are the same in the namespace and outside."""
# binfmt_misc reads the escapes: the head of an ELF file of 64 bits, little endian, a program or a library, for machine 21.
_KIND = (
    r":qemu-ppc64le:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x15\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\xfc\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\x00:{emulator}:F"
)
# The first shell has no rights until its ids are mapped, and the second one all of them over what the namespace has.
_HOLD = 'echo ready; read -r go; exec sh -ec "$@"'
# Nobody makes device nodes in a namespace, so those of the machine are lent.
_INSIDE = """
if ! [ -e /proc/sys/fs/binfmt_misc/qemu-ppc64le ]; then
    mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
    printf %s "$1" >/proc/sys/fs/binfmt_misc/register
fi
cd "$2"
mount -t tmpfs -o mode=755 tmpfs dev
for each in null zero full random urandom tty; do
    : >dev/$each
    mount --bind /dev/$each dev/$each
done
shift 2
exec chroot . "$@"
"""
_MERGED = ("bin", "sbin", "lib", "lib64")
"""Links to the directories of the same names in /usr."""


def why_not() -> str:
    """Return why this machine cannot make one, in one line; an empty text when it can."""
    if os.getuid() != 0:
        return "a root of another architecture needs root"
    if shutil.which(EMULATOR, path=PATH) is None:
        return f"there is no {EMULATOR}; apt-get install qemu-user-static"
    return ""


def unpack(root: Path, packages: Sequence[Path]) -> None:
    """Unpack packages into an empty root, and have its dpkg know that they wait to be configured. Raises DebianRootError."""
    information = root / "var/lib/dpkg/info"
    for directory in (information, *(information.parent / name for name in ("alternatives", "parts", "triggers", "updates"))):
        directory.mkdir(parents=True)
    for name in _MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    (information / "format").write_text("1\n")
    (information.parent / "available").touch()
    (information.parent / "status").write_text("\n".join(_unpack(root, package, information) for package in packages))


def run_in(root: Path, command: Sequence[str], seconds: float, text: str = "") -> str:
    """Run a program of a root there, and return what it wrote.

    Args:
        root: unpacked.
        command: what runs, in mount, process and user namespaces of its own: all of it ends with the command.
        seconds: how long it may take.
        text: its standard input.

    Raises DebianRootError.
    """
    script = ("sh", "-c", _HOLD, "sh", _INSIDE, "sh", _KIND.format(emulator=shutil.which(EMULATOR, path=PATH)), str(root))
    with subprocess.Popen(
        ["unshare", "--user", "--mount", "--pid", "--fork", "--kill-child", "--", *script, *command],
        env={"PATH": PATH, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            if process.stdout.readline() == "ready\n":
                for name in ("uid_map", "gid_map"):
                    Path(f"/proc/{process.pid}/{name}").write_text(_IDS)
            output, _ = process.communicate(f"go\n{text}", seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise DebianRootError(f"{' '.join(command)} takes longer than {seconds:.0f} s in the new root") from None
    if process.returncode:
        raise DebianRootError(f"{' '.join(command)} failed in the new root: {output.strip()[-1000:]}", "please report it")
    return output


def _unpack(root: Path, package: Path, information: Path) -> str:
    """Unpack one; return its part of dpkg's status."""
    control = _dpkg_deb("--ctrl-tarfile", package, "-xO", "./control").decode().rstrip("\n").splitlines()
    fields = dict(line.split(": ", 1) for line in control if ": " in line and not line.startswith(" "))
    same = fields.get("Multi-Arch") == "same"
    name = f"{fields['Package']}:{fields['Architecture']}" if same else fields["Package"]
    files = _dpkg_deb("--fsys-tarfile", package, "-xpv", "--keep-directory-symlink", "-C", str(root)).decode().splitlines()
    (information / f"{name}.list").write_text("".join(f"{file[1:].rstrip('/') or '/.'}\n" for file in files))
    scripts = _dpkg_deb("--ctrl-tarfile", package, "-xpv", f"--transform=s,^\\./,{name}.,", "-C", str(information))
    control.insert(1, "Status: install ok unpacked")
    if "./conffiles" in scripts.decode().split():
        control.append("Conffiles:")
        for file in (information / f"{name}.conffiles").read_text().splitlines():
            if file.startswith("/"):
                control.append(f" {file} {hashlib.md5((root / file[1:]).read_bytes(), usedforsecurity=False).hexdigest()}")
    (information / f"{name}.control").unlink()
    return "\n".join(control) + "\n"


def _dpkg_deb(part: str, package: Path, *arguments: str) -> bytes:
    """Hand a part of a package to tar, and return what that writes. Raises DebianRootError."""
    with subprocess.Popen(["dpkg-deb", part, str(package)], stdout=subprocess.PIPE) as reader:
        done = subprocess.run(["tar", *arguments], stdin=reader.stdout, capture_output=True, timeout=UNPACK_S, check=False)
    if reader.returncode or done.returncode:
        raise DebianRootError(f"{package.name} cannot be unpacked: {done.stderr.decode().strip()[-300:]}")
    return done.stdout
