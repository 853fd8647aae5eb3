# SPDX-License-Identifier: GPL-2.0-or-later
"""`./dev dist`, in clones of what is tracked here: archives, bill of materials, checksums; the commit decides their bytes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import splitvisor
from tests.guests.harness import ROOT
from tests.packaging.archives import PAGE, copy_checkout

pytestmark = pytest.mark.timeout(900)  # pip fetches what its cache does not have

RELEASE_SECONDS = 400.0
WHEEL = f"splitvisor-{splitvisor.__version__}-py3-none-manylinux_2_17_x86_64.whl"
BILL = f"splitvisor-{splitvisor.__version__}.cdx.json"
DATE = "2024-05-06T07:08:09+0000"
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
AUTHOR = {f"GIT_{role}_{field}": "nobody" for role in ("AUTHOR", "COMMITTER") for field in ("NAME", "EMAIL")}


def commit(checkout: Path) -> Path:
    """Copy what is tracked here, and the page, to a new repository with one commit."""
    if not (ROOT / PAGE / "xterm.mjs").exists():
        pytest.skip("the wheel needs xterm.js: run ./dev web, which needs npm")
    copy_checkout(checkout)
    dates = {"GIT_AUTHOR_DATE": DATE, "GIT_COMMITTER_DATE": DATE}
    for arguments in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "everything"]):
        subprocess.run(["git", "-C", str(checkout), *arguments], env=ENVIRONMENT | AUTHOR | dates, check=True, timeout=60)
    # `./dev` uses this environment; it would change one that is not what the lock file lists.
    assert Path(sys.prefix, "requirements-dev.lock").read_bytes() == (ROOT / "requirements-dev.lock").read_bytes()
    (checkout / ".venv").symlink_to(sys.prefix)
    with (checkout / ".git/info/exclude").open("a") as exclude:
        exclude.write(".venv\n")  # .gitignore names the directory
    return checkout


def dist(checkout: Path, *, umask: int = 0o022) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(checkout / "dev"), "dist"], cwd="/", env=ENVIRONMENT, capture_output=True, text=True, timeout=RELEASE_SECONDS,
        check=False, umask=umask,
    )  # fmt: skip


def sums(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dist/ of a clean clone."""
    checkout = commit(tmp_path_factory.mktemp("release") / "checkout")
    done = dist(checkout)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(done.stdout.split()) == {f"dist/{name}" for name in sums(checkout / "dist")}
    return checkout / "dist"


@pytest.fixture(scope="module")
def bill(release: Path) -> dict[str, Any]:
    """The bill of materials."""
    contents: dict[str, Any] = json.loads((release / BILL).read_text())
    return contents


def test_it_makes_two_archives_a_bill_and_checksums_that_hold(release: Path) -> None:
    assert set(sums(release)) == {f"splitvisor-{splitvisor.__version__}.tar.gz", WHEEL, BILL, "SHA256SUMS"}
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=release, capture_output=True, text=True, check=False, timeout=60
    )
    assert checked.returncode == 0, checked.stderr
    assert sorted(checked.stdout.splitlines()) == sorted(f"{name}: OK" for name in sums(release) if name != "SHA256SUMS")


def test_the_page_about_installing_names_what_is_made(release: Path) -> None:
    page = (ROOT / "docs/install.md").read_text()
    table = page.partition("writes four files:")[2].partition("    sha256sum")[0]
    assert set(re.findall(r"^\| `(\S+)` \|", table, re.MULTILINE)) == set(sums(release))


def test_times_are_the_commits(release: Path) -> None:
    # zip counts in steps of two seconds.
    with zipfile.ZipFile(release / WHEEL) as archive:
        assert {member.date_time for member in archive.infolist()} == {(2024, 5, 6, 7, 8, 8)}
    assert json.loads((release / BILL).read_text())["metadata"]["timestamp"] == "2024-05-06T07:08:09+00:00"


def test_the_bill_is_valid_and_lists_what_the_wheel_needs_and_has(release: Path, bill: dict[str, Any]) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str((release / BILL).read_text()) is None
    found = {each["purl"]: each for each in bill["components"]}
    lock = (ROOT / "requirements.lock").read_text()
    needed = {f"pkg:pypi/{name}@{version}" for name, version in re.findall(r"^([\w.-]+)==([^ ;\\]+)", lock, re.MULTILINE)}
    page = json.loads((ROOT / "gateway_service/web/package-lock.json").read_text())["packages"][""]["dependencies"]
    contained = {f"pkg:npm/{name.replace('@', '%40')}@{version}" for name, version in page.items()}
    assert set(found) == needed | contained
    assert {purl.rpartition("@")[0].removeprefix("pkg:pypi/") for purl in needed} >= {
        "grpcio", "protobuf", "pyfdt", "structlog", "unicorn",
    }  # fmt: skip


def test_the_bill_has_every_licence_that_is_known(bill: dict[str, Any]) -> None:
    licences = {each["name"]: json.dumps(each.get("licenses", "none")) for each in bill["components"]}
    expected = {
        "grpcio": "Apache-2.0",
        "protobuf": "BSD",
        "structlog": "MIT OR Apache-2.0",
        "unicorn": "BSD",
        "@xterm/xterm": "MIT",
    }
    assert {name for name, licence in expected.items() if licence not in licences[name]} == set()
    # Its metadata declares none.
    assert {name for name, licence in licences.items() if licence == '"none"'} == {"pyfdt"}


def test_the_bill_is_of_this_wheel(release: Path, bill: dict[str, Any]) -> None:
    root = bill["metadata"]["component"]
    assert (root["name"], root["version"]) == ("splitvisor", splitvisor.__version__)
    assert root["hashes"] == [{"alg": "SHA-256", "content": sums(release)[WHEEL]}]
    names = {each["bom-ref"]: each["name"] for each in bill["components"]}
    [needed] = [each["dependsOn"] for each in bill["dependencies"] if each["ref"] == root["bom-ref"]]
    assert {"grpcio", "unicorn", "aiohttp", "psycopg", "@xterm/xterm"} <= {names[ref] for ref in needed}


@pytest.mark.long
def test_equal_commits_make_equal_bytes(release: Path, tmp_path: Path) -> None:
    """Another place, another umask, files that git does not have, and a change that is not committed."""
    checkout = commit(tmp_path / "elsewhere" / "clone")
    (checkout / "splitvisor" / "left_over.py").write_text("print('of no commit')\n")
    (checkout / "README.md").write_text("")
    done = dist(checkout, umask=0o077)
    assert done.returncode == 0, done.stderr
    [line] = done.stderr.splitlines()
    assert line == "dist: there are uncommitted changes; the archives are those of HEAD, without them"
    assert sums(checkout / "dist") == sums(release)


def test_a_failure_says_why_and_leaves_what_was_there(tmp_path: Path) -> None:
    checkout = commit(tmp_path / "checkout")
    (checkout / "dist").mkdir()
    (checkout / "dist" / "before").touch()
    lock = checkout / "requirements-build.lock"
    lock.write_text(re.sub(r"sha256:\w{64}", f"sha256:{'0' * 64}", lock.read_text()))
    subprocess.run(
        ["git", "-C", str(checkout), "commit", "-qam", "other hashes"], env=ENVIRONMENT | AUTHOR, check=True, timeout=60
    )
    failed = dist(checkout)
    assert failed.returncode == 1
    assert failed.stderr.startswith("dist: what requirements-build.lock lists cannot be installed: "), failed.stderr
    shutil.rmtree(checkout / ".git")
    failed = dist(checkout)
    assert failed.returncode == 1
    assert failed.stderr.startswith("dist: a release is made of a commit: is this a git checkout?: "), failed.stderr
    assert len(failed.stderr.splitlines()) == 1
    assert [path.name for path in (checkout / "dist").iterdir()] == ["before"]
