# SPDX-License-Identifier: GPL-2.0-or-later
"""Packages are unpacked into a root so that its dpkg takes them for unpacked ones, and programs there run by emulation."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from splitvisor.devtools import foreign_root
from splitvisor.devtools.debian_root import DebianRootError
from splitvisor.devtools.foreign_root import unpack

CONTROL = "Package: {name}\nVersion: 1\nArchitecture: ppc64el\nMaintainer: Nobody <nobody@example.org>\nDescription: none\n"


def package(directory: Path, name: str, files: Mapping[str, str], *, settings: str = "", same: bool = False) -> Path:
    """Build a package, by Debian's own tool."""
    tree = directory / name
    (tree / "DEBIAN").mkdir(parents=True)
    more = "Multi-Arch: same\n" if same else ""
    (tree / "DEBIAN/control").write_text(CONTROL.format(name=name) + more)
    (tree / "DEBIAN/postinst").write_text("#!/bin/sh\n")
    (tree / "DEBIAN/postinst").chmod(0o755)
    if settings:
        (tree / "DEBIAN/conffiles").write_text(settings)
    for file, text in files.items():
        (tree / file).parent.mkdir(parents=True, exist_ok=True)
        (tree / file).write_text(text)
    built = directory / f"{name}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, built], capture_output=True, check=True, timeout=60)
    return built


def dpkg(root: Path, *arguments: str) -> str:
    command = ["dpkg-query", f"--admindir={root}/var/lib/dpkg", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_dpkg_takes_what_was_unpacked_for_unpacked(tmp_path: Path) -> None:
    root = tmp_path / "root"
    tools = package(tmp_path, "tools", {"bin/tool": "#!/bin/sh\n", "etc/tool.conf": "a = 1\n"}, settings="/etc/tool.conf\n")
    library = package(tmp_path, "libtool", {"usr/lib/libtool.so": "bytes"}, same=True)
    unpack(root, [library, tools])
    assert (root / "usr/bin/tool").read_text() == "#!/bin/sh\n", "what has not moved to /usr is found there by a link"
    assert (root / "bin").readlink() == Path("usr/bin")
    assert dpkg(root, "-W", "-f", "${binary:Package} ${db:Status-Abbrev}\n").splitlines() == [
        "libtool:ppc64el iU ",
        "tools:ppc64el iU ",
    ]
    assert dpkg(root, "-L", "tools:ppc64el").split() == ["/.", "/bin", "/bin/tool", "/etc", "/etc/tool.conf"]
    assert dpkg(root, "-L", "libtool:ppc64el").split()[-1] == "/usr/lib/libtool.so"
    assert dpkg(root, "--control-list", "tools:ppc64el").split() == ["postinst"]
    md5 = subprocess.run(
        ["md5sum", root / "etc/tool.conf"], capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()[0]
    assert dpkg(root, "-W", "-f", "${Conffiles}", "tools:ppc64el").split() == ["/etc/tool.conf", md5]


def test_a_package_that_is_broken_is_told_in_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.deb"
    broken.write_bytes(b"!<arch>\n")
    with pytest.raises(DebianRootError, match=r"^broken.deb cannot be unpacked"):
        unpack(tmp_path / "root", [broken])


def test_without_its_emulator_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 0)
    monkeypatch.setattr(foreign_root, "PATH", "/nowhere")
    assert foreign_root.why_not() == "there is no qemu-ppc64le-static; apt-get install qemu-user-static"
    monkeypatch.setattr("os.getuid", lambda: 1000)
    assert foreign_root.why_not() == "a root of another architecture needs root"
