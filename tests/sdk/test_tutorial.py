# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/backends.md: its commands and its code do what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import splitvisor.backend
import splitvisor.backend.vio
import splitvisor.testing
from splitvisor.testing.scripted_guest import ScriptedGuest
from tests.guests.harness import ROOT

PAGE = (ROOT / "docs/backends.md").read_text()
BLOCK_S = 120.0


def test_the_tutorial_works_as_it_stands(short_path: Path) -> None:
    tutorial = PAGE[: PAGE.index("## What a back end may rely on")]
    blocks = re.findall(r"```(sh|python)\n(.*?)```", tutorial, re.DOTALL)
    assert [kind for kind, _ in blocks] == ["sh", "python", "python", "sh"]
    directory, said = short_path, []
    programs = short_path / "bin"
    programs.mkdir()
    for name, command in {"python": f'"{sys.executable}"', "splitvisor": f'"{sys.executable}" -m splitvisor'}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "XDG_RUNTIME_DIR": str(short_path)}
    for kind, text in blocks:
        if kind == "python":
            name = text.partition("\n")[0].removeprefix("# ")
            assert (directory / name).exists(), "new-device has written one of that name"
            (directory / name).write_text(text)
            continue
        script = text.replace("/tmp/doorbell.sock", f"{short_path}/doorbell.sock")
        done = subprocess.run(
            ["bash", "-e", "-c", script], cwd=directory, env=environment, capture_output=True, text=True, timeout=BLOCK_S,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        said.append(done.stdout)
        directory = short_path / "doorbell"
    assert "5 passed" in said[0]
    assert "5 passed" in said[1]
    assert "doorbell@30000000" in said[1], "the demo guest lists it"


def test_every_name_in_the_tables_exists() -> None:
    api = PAGE[PAGE.index("## splitvisor.backend") : PAGE.index("## splitvisor.testing")]
    for name in re.findall(r"^\| `(\w+)", api, re.MULTILINE):
        assert hasattr(splitvisor.backend, name), name
    fixtures, methods = PAGE[PAGE.index("## splitvisor.testing") : PAGE.index("## In another")].split("The guest is a program")
    for name in re.findall(r"^\| `(\w+)", fixtures, re.MULTILINE):
        assert hasattr(splitvisor.testing, name), name
    kit = PAGE[PAGE.index("| In `splitvisor.backend.vio`") : PAGE.index("## splitvisor.backend")]
    for row in re.findall(r"^\| (`.*?) \|", kit, re.MULTILINE):
        for name in re.findall(r"`(\w+)", row):
            assert hasattr(splitvisor.backend.vio, name), name
    found = re.findall(r"`guest\.(\w+)\(", methods)
    assert found
    for name in found:
        assert hasattr(ScriptedGuest, name), name
