# SPDX-License-Identifier: GPL-2.0-or-later
"""The script of docs/consoles.md, on Debian: several expects after one send find what came after each other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.guests.conftest import Run
from tests.guests.harness import BOOT_SECONDS, ROOT, Guests


def test_the_script_of_the_documentation_works(run: Run, guests: Guests, tmp_path: Path) -> None:
    [script] = re.findall(r"```sh\n(at=.*?)```", (ROOT / "docs" / "consoles.md").read_text(), re.DOTALL)
    console = run("--kernel", str(guests.kernel), "--initrd", str(guests.shell), "--append", "console=hvc0", "--name", "script")
    console.expect("guest# ", BOOT_SECONDS)
    program = tmp_path / "splitvisor"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m splitvisor "$@"\n')
    program.chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "XDG_RUNTIME_DIR": str(console.runtime),
        "PYTHONPATH": str(ROOT), "vm": "script",
    }  # fmt: skip
    # The run itself types on the console.
    script = script.replace("--enter", "--enter --force")
    done = subprocess.run(
        ["sh", "-c", script], env=environment, capture_output=True, text=True, timeout=BOOT_SECONDS, check=False
    )
    assert (done.returncode, done.stdout) == (0, "status 0\n"), done.stderr
