# SPDX-License-Identifier: GPL-2.0-or-later
"""The native part is what its sources give, and needs nothing but Unicorn."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cpu_service.engine import layout, native
from cpu_service.engine.native import build


@pytest.mark.skipif(not all(map(shutil.which, build.TOOLS)), reason="needs gcc and binutils")
def test_the_built_library_is_what_the_sources_give(tmp_path: Path) -> None:
    build.build(tmp_path / "built.so")
    assert (tmp_path / "built.so").read_bytes() == native.BUILT.read_bytes(), "run python -m cpu_service.engine.native.build"


@pytest.mark.skipif(not shutil.which("readelf"), reason="needs binutils")
def test_it_needs_no_library_but_unicorn() -> None:
    shown = subprocess.run(["readelf", "-d", native.BUILT], capture_output=True, text=True, check=True).stdout
    assert [line.partition("[")[2].rstrip("]") for line in shown.splitlines() if "(NEEDED)" in line] == [build.UNICORN]


def test_a_library_that_does_not_load_is_refused_in_one_line(tmp_path: Path) -> None:
    """A process of its own: the library is loaded once."""
    broken = tmp_path / "native.so"
    broken.write_bytes(native.BUILT.read_bytes()[:100])
    script = (
        "from pathlib import Path; from cpu_service.engine import native; from cpu_service.engine.layout import *\n"
        f"native.BUILT = Path({str(broken)!r})\n"
        "try: native.library()\n"
        "except UnsupportedEngineError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.count("\n") == 1
    assert said.startswith(f"this Unicorn build is not supported: expected {layout.SUPPORTED_VERSION} on ")
    assert "native.so" in said


def test_what_is_not_there_has_no_address() -> None:
    with pytest.raises(ValueError, match="no_such_function"):
        native.address("no_such_function")
