# SPDX-License-Identifier: GPL-2.0-or-later
"""The sdist and the wheel: what is in them, and that nothing but the sources decides it."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tarfile
import zipfile
from email.parser import BytesParser
from pathlib import Path

import splitvisor
from splitvisor.devtools.manual import manual
from tests.guests.harness import ROOT
from tests.packaging.archives import MANUAL, PAGE, PAGE_SOURCES, build, copy_checkout, only, tracked_files

PACKAGES = {"splitvisor", "cpu_service", "hcall_service", "vio_service", "of_client_service", "gateway_service"}
NOT_IN_WHEEL = ("splitvisor/devtools/", "gateway_service/web/")
"""Of the packages' files: what developers run, and what the page is made from."""
SOURCE_ONLY = (".c", ".h", ".S")
OLD = 1_000_000_000


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wheel_files(wheel: Path) -> dict[str, zipfile.ZipInfo]:
    with zipfile.ZipFile(wheel) as archive:
        return {member.filename: member for member in archive.infolist()}


def test_the_sdist_has_every_file_and_the_sources_of_the_page(archives: Path) -> None:
    """The GPL asks for the source of everything that is built: the repository's, and xterm.js's, which is built elsewhere."""
    with tarfile.open(only(archives, "*.tar.gz")) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert set(tracked_files()) <= packed
    for path in (ROOT / PAGE, ROOT / PAGE_SOURCES):
        files = {str(each.relative_to(ROOT)) for each in path.rglob("*") if each.is_file()}
        assert len(files) > 5
        assert files <= packed


def test_the_wheel_has_the_packages_their_data_and_the_contracts(wheel: Path) -> None:
    found = set(wheel_files(wheel))
    own = {name for name in found if not re.search(r"\.(dist-info|data)/", name)}
    assert {name.partition("/")[0] for name in own} == PACKAGES
    wanted = {
        name
        for name in tracked_files()
        if name.partition("/")[0] in PACKAGES and not name.startswith(NOT_IN_WHEEL) and not name.endswith(SOURCE_ONLY)
    }
    wanted |= {str(path.relative_to(ROOT)) for path in (ROOT / PAGE).iterdir()}
    wanted |= {f"splitvisor/{name}" for name in tracked_files() if re.fullmatch(r"proto/.*\.proto", name)}
    assert own == wanted
    assert {"splitvisor/py.typed", "splitvisor/firmware/demo.elf", "cpu_service/engine/native/native.so"} <= own


def test_the_wheel_has_the_man_page(wheel: Path) -> None:
    """Where installers put it into share/man of the environment."""
    with zipfile.ZipFile(wheel) as archive:
        page = archive.read(f"splitvisor-{splitvisor.__version__}.data/data/share/{MANUAL.parent}/man1/{MANUAL.name}")
    assert page.decode() == manual()


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    assert wheel.name == f"splitvisor-{splitvisor.__version__}-py3-none-manylinux_2_17_x86_64.whl"
    with zipfile.ZipFile(wheel) as archive:
        about = f"splitvisor-{splitvisor.__version__}.dist-info"
        metadata = BytesParser().parsebytes(archive.read(f"{about}/METADATA"))
        tags = BytesParser().parsebytes(archive.read(f"{about}/WHEEL"))
        assert archive.read(f"{about}/entry_points.txt").decode().split() == [
            "[console_scripts]",
            "splitvisor",
            "=",
            "splitvisor.__main__:main",
        ]
    assert metadata["Version"] == splitvisor.__version__
    assert metadata["License-Expression"] == "GPL-2.0-or-later"
    assert (tags["Root-Is-Purelib"], tags["Tag"]) == ("false", "py3-none-manylinux_2_17_x86_64")
    base = {
        requirement.partition(">")[0] for requirement in metadata.get_all("Requires-Dist", ()) if "extra ==" not in requirement
    }
    assert base == {"grpcio", "grpcio-health-checking", "grpcio-reflection", "grpcio-status", "protobuf", "structlog"}


def test_only_the_files_decide_what_is_built(archives: Path, tmp_path: Path) -> None:
    """A build of another copy, with other times and another umask; its wheel comes from the files, not from an sdist."""
    checkout = copy_checkout(tmp_path / "elsewhere" / "checkout")
    for path in checkout.rglob("*"):
        os.utime(path, (OLD, OLD))
        path.chmod(path.stat().st_mode & 0o700)
    for kind in ("--sdist", "--wheel"):
        done = build(checkout, tmp_path, kind, umask=0o077)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    for pattern in ("*.tar.gz", "*.whl"):
        assert sha256(only(archives, pattern)) == sha256(only(tmp_path, pattern)), pattern


def test_no_time_and_no_owner_of_the_builder_is_in_them(archives: Path, wheel: Path) -> None:
    with tarfile.open(only(archives, "*.tar.gz")) as archive:
        assert {(member.mtime, member.uid, member.uname) for member in archive} == {(1_700_000_000, 0, "")}
    assert {member.date_time for member in wheel_files(wheel).values()} == {(2023, 11, 14, 22, 13, 20)}
    modes = {name: member.external_attr >> 16 & 0o777 for name, member in wheel_files(wheel).items()}
    assert {mode for name, mode in modes.items() if not name.endswith("/RECORD")} == {0o644}


def test_without_the_page_a_build_fails_and_says_what_to_run(tmp_path: Path) -> None:
    checkout = copy_checkout(tmp_path / "checkout", page=False)
    for kind in ("--sdist", "--wheel"):
        failed = build(checkout, tmp_path, kind)
        assert failed.returncode != 0
        assert "run ./dev web first, which needs npm" in failed.stdout + failed.stderr
    (checkout / PAGE).mkdir(parents=True)
    (checkout / PAGE / "package-lock.json").write_text("{}")
    stale = build(checkout, tmp_path, "--wheel")
    assert stale.returncode != 0
    assert f"{PAGE} does not have what gateway_service/web/package-lock.json lists" in stale.stdout + stale.stderr
    assert list(tmp_path.glob("*.whl")) == list(tmp_path.glob("*.tar.gz")) == []


def test_without_the_man_page_a_build_fails_and_says_what_to_run(tmp_path: Path) -> None:
    checkout = copy_checkout(tmp_path / "checkout")
    (checkout / MANUAL).unlink()
    failed = build(checkout, tmp_path, "--wheel")
    assert failed.returncode != 0
    assert f"{MANUAL} is not there; run ./dev docs first" in failed.stdout + failed.stderr


def test_a_clean_clone_has_what_a_build_reads() -> None:
    """Nothing of the build comes from ignored files, but for the web page and the man page."""
    ignored = subprocess.run(
        ["git", "-C", str(ROOT), "check-ignore", *tracked_files()], capture_output=True, text=True, check=False, timeout=60
    )
    assert ignored.stdout == ""
