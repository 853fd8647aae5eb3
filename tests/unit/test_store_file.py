# SPDX-License-Identifier: GPL-2.0-or-later
"""The file of a device-tree store: what SQLite would wait for, or lose revisions in, is refused."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hcall_service.device_tree_store import StoreError, open_store


def _two_names(path: Path) -> None:
    open_store(str(path)).close()
    path.with_name("other").hardlink_to(path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "is not a regular file but a pipe"),
        (Path.mkdir, "is not a regular file but a directory"),
        (lambda path: path.symlink_to("/dev/zero"), "is not a regular file but a character device"),
        (_two_names, "it has two names, and a log for each would lose revisions; copy it instead of linking it"),
        (lambda path: path.write_bytes(b"\x7fELF, a kernel perhaps" * 100), "file is not a database"),
    ],
)
def test_a_file_that_cannot_be_a_store_is_refused_in_one_line(make: Callable[[Path], None], words: str, tmp_path: Path) -> None:
    path = tmp_path / "trees"
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(StoreError, match=words) as caught:
        open_store(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not before or path.read_bytes() == before


def test_a_link_stays_one_and_its_target_keeps_the_revisions(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    link, target = tmp_path / "trees", tmp_path / "kept" / "real"
    link.symlink_to(target)
    store = open_store(str(link))
    store.put("vm", 1, b"tree")
    store.close()
    assert link.is_symlink()
    again = open_store(str(target))
    assert again.get("vm", 0)[1] == b"tree"
    again.close()


def test_a_file_that_is_mounted_alone_is_refused(private_mounts: Callable[[str], str]) -> None:
    script = """
from hcall_service.device_tree_store import StoreError, open_store
try:
    open_store("trees")
except StoreError as error:
    print(error)
"""
    said = private_mounts(f"touch real trees; mount --bind real trees; {shlex.join([sys.executable, '-c', script])}")
    assert said.endswith("it is mounted as a single file, which leaves its log outside; mount its directory instead")
