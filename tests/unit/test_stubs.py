# SPDX-License-Identifier: GPL-2.0-or-later
"""The gRPC stubs of splitvisor/rpc are what proto/ makes."""

from __future__ import annotations

from pathlib import Path

from splitvisor.devtools import generate_stubs as stubs

COMMITTED = stubs.ROOT / "splitvisor" / "rpc"


def test_the_committed_stubs_are_what_the_protos_make(tmp_path: Path) -> None:
    stubs.generate(tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text() for path in COMMITTED.iterdir() if "_pb2" in path.name and path.suffix != ".pyc"}
    assert set(made) == set(committed)
    different = [name for name in made if made[name] != committed[name]]
    assert not different, "run ./dev proto and commit what it changes"
