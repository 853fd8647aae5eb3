# SPDX-License-Identifier: GPL-2.0-or-later
"""A partial mirror of Debian for the installer: the packages of a small system, and the installer's own components (udebs)."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

ARCHITECTURE = "ppc64el"
SUITE = "bookworm"
SYSTEM = (
    "?priority(required)", "apt", "busybox", "debconf-i18n", "e2fsprogs", "grub-ieee1275", "ifupdown", "initramfs-tools",
    "iproute2", "isc-dhcp-client", "linux-image-powerpc64le", "systemd-sysv", "udev", "usr-is-merged", "zstd",
)  # fmt: skip
"""For apt, which adds what they depend on: debootstrap takes the required and the important ones, the installer the others."""
_INDICES = {"deb": f"main/binary-{ARCHITECTURE}", "udeb": f"main/debian-installer/binary-{ARCHITECTURE}"}


def make_mirror(root: Path, packages: Iterable[Path]) -> None:
    """Make a mirror of packages, whose names end in .deb or .udeb, without signatures."""
    dists = root / f"dists/{SUITE}"
    pool = root / "pool"
    pool.mkdir(parents=True)
    stanzas: dict[str, list[str]] = {kind: [] for kind in _INDICES}
    for package in packages:
        # apt writes the colon of an epoch as %3a, which a web server would take for a colon.
        file = pool / package.name.replace("%3a", "-")
        shutil.copyfile(package, file)
        stanzas[file.suffix[1:]].append(_stanza(file, file.relative_to(root)))
    for kind, folder in _INDICES.items():
        (dists / folder).mkdir(parents=True)
        index = "\n".join(stanzas[kind]).encode()
        (dists / folder / "Packages").write_bytes(index)
        (dists / folder / "Packages.gz").write_bytes(gzip.compress(index, mtime=0))
    # By this the installer knows which architectures a mirror has.
    (dists / _INDICES["deb"] / "Release").write_text(f"Component: main\nArchitecture: {ARCHITECTURE}\n")
    (dists / "Release").write_text(_release(dists))


def make_udeb(directory: Path, root: Path, fields: dict[str, str], scripts: Sequence[Path] = ()) -> Path:
    """Make a component of the installer.

    Args:
        directory: where the new file goes.
        root: its files.
        fields: of its control file, besides those that all have.
        scripts: become files of its control archive, by the ends of their names (postinst, templates).
    """
    control = root / "DEBIAN"
    control.mkdir(parents=True)
    fields = {
        "Package": fields["Package"], "Version": "1", "Architecture": ARCHITECTURE, "Maintainer": "Splitvisor",
        "Section": "debian-installer", "Priority": "standard", "Description": "Made for a test", **fields,
    }  # fmt: skip
    (control / "control").write_text("".join(f"{name}: {value}\n" for name, value in fields.items()))
    for script in scripts:
        part = control / script.name.rpartition(".")[2]
        shutil.copyfile(script, part)
        part.chmod(0o644 if part.name == "templates" else 0o755)
    file = directory / f"{fields['Package']}_{fields['Version']}_{fields['Architecture']}.udeb"
    _output(["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(root), str(file)])
    return file


def _stanza(file: Path, name: Path) -> str:
    """Return what an index says of a package."""
    data = file.read_bytes()
    control = _output(["dpkg-deb", "--field", str(file)]).rstrip("\n")
    return f"{control}\nFilename: {name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"


def _release(dists: Path) -> str:
    fields = {
        "Origin": "Debian", "Suite": SUITE, "Codename": SUITE, "Date": format_datetime(datetime.now(UTC), usegmt=True),
        "Architectures": ARCHITECTURE, "Components": "main",
    }  # fmt: skip
    lines = [f"{name}: {value}" for name, value in fields.items()]
    files = sorted(path for path in dists.rglob("*") if path.is_file())
    sums = [f" {hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_size} {path.relative_to(dists)}" for path in files]
    return "\n".join([*lines, "SHA256:", *sums]) + "\n"


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
