# SPDX-License-Identifier: GPL-2.0-or-later
"""`./dev dist`: the archives of a commit, their bill of materials and their checksums, in dist/.

Equal commits make equal bytes. Sources are what git has in HEAD, and the page's part of npm; times are the commit's, or
SOURCE_DATE_EPOCH; the build back end has the versions and hashes of requirements-build.lock, in an environment of its own.
The wheel is built from the unpacked source archive, which proves that the archive is complete.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from build import BuildBackendException, ProjectBuilder
from pyproject_hooks import quiet_subprocess_runner

from splitvisor.devtools.sbom import bill_of_materials

SUMS = "SHA256SUMS"
_PAGE = (Path("gateway_service/static/vendor"), Path("gateway_service/web/sources"))
"""Fetched from npm by `./dev web`, not in git."""


class ReleaseError(Exception):
    """A release cannot be made; the message says why, and what to do."""


def make_release(checkout: Path) -> list[Path]:
    """Write the files of the checkout's HEAD to its dist/, in place of what is there; return them.

    Raises ReleaseError.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or _git(checkout, "log", "-1", "--format=%ct").strip()
    os.environ["SOURCE_DATE_EPOCH"] = epoch
    if _git(checkout, "status", "--porcelain"):
        print("dist: there are uncommitted changes; the archives are those of HEAD, without them", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="splitvisor-dist-") as directory:
        work = Path(directory)
        source = _export(checkout, work / "source")
        made = work / "dist"
        builder = _environment(work / "builder", source / "requirements-build.lock")
        installed = _environment(work / "installed", source / "requirements.lock")
        _write_manual(source, installed)
        archive = _build("sdist", source, builder, made)
        with tarfile.open(archive) as packed:
            packed.extractall(work / "unpacked", filter="data")
        [unpacked] = (work / "unpacked").iterdir()
        wheel = _build("wheel", unpacked, builder, made)
        bill = made / f"{'-'.join(wheel.name.split('-')[:2])}.cdx.json"
        try:
            bill.write_text(bill_of_materials(source, installed, wheel))
        except subprocess.CalledProcessError as error:
            raise ReleaseError(f"cyclonedx-py cannot describe what requirements.lock lists: {error.stderr.strip()}") from error
        files = [archive, wheel, bill]
        lines = sorted(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
        (made / SUMS).write_text("".join(lines))
        target = checkout / "dist"
        shutil.rmtree(target, ignore_errors=True)
        shutil.move(made, target)
    return [target / path.name for path in (*files, made / SUMS)]


def _git(checkout: Path, *arguments: str) -> str:
    return _run(["git", "-C", str(checkout), *arguments], "a release is made of a commit: is this a git checkout?")


def _export(checkout: Path, source: Path) -> Path:
    """Copy what git has in HEAD, and the page's part of npm."""
    source.mkdir()
    packed = source.with_suffix(".tar")
    _git(checkout, "archive", "--format=tar", f"--output={packed}", "HEAD")
    with tarfile.open(packed) as archive:
        archive.extractall(source, filter="data")
    for part in _PAGE:
        if not (checkout / part).is_dir():
            raise ReleaseError(f"{part} is not there; run ./dev web first, which needs npm")
        shutil.copytree(checkout / part, source / part)
    return source


def _environment(directory: Path, lock: Path) -> Path:
    """Make a virtual environment that has what a lock file lists and nothing else, not even pip."""
    venv.create(directory, with_pip=False)
    pip = [sys.executable, "-P", "-m", "pip", "--python", str(directory / "bin" / "python"), "--disable-pip-version-check"]
    _run([*pip, "install", "--quiet", "--require-hashes", "-r", str(lock)], f"what {lock.name} lists cannot be installed")
    return directory


def _write_manual(source: Path, environment: Path) -> None:
    """Make the man page of the exported sources' commands, which git does not have."""
    command = [str(environment / "bin" / "python"), "-m", "splitvisor.devtools.manual", str(source / "man" / "splitvisor.1")]
    _run(command, "the man page cannot be made", directory=source)


def _build(kind: Literal["sdist", "wheel"], source: Path, environment: Path, target: Path) -> Path:
    builder = ProjectBuilder(source, str(environment / "bin" / "python"), quiet_subprocess_runner)
    try:
        if missing := builder.check_dependencies(kind):
            needed = ", ".join(sorted(each[0] for each in missing))
            raise ReleaseError(f"requirements-build.lock does not have {needed}, which pyproject.toml asks for; run ./dev lock")
        return Path(builder.build(kind, target))
    except BuildBackendException as error:
        said = getattr(error.exception, "output", None) or b""
        reason = said.decode(errors="replace").strip().rpartition("\n")[2] or error
        raise ReleaseError(f"the {kind} cannot be built: {reason}") from error


def _run(command: Sequence[str], failure: str, directory: Path | None = None) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        reasons = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
        raise ReleaseError(f"{failure}: {' '.join(reasons[-1:]) or f'status {done.returncode}'}")
    return done.stdout


if __name__ == "__main__":
    try:
        for path in make_release(Path.cwd()):
            print(path.relative_to(Path.cwd()))
    except ReleaseError as error:
        sys.exit(f"dist: {error}")
