# SPDX-License-Identifier: GPL-2.0-or-later
"""Build native.so with the machine's own gcc. Equal sources and tools give equal bytes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from cpu_service.engine.native import BUILT

SOURCES = sorted(BUILT.parent.glob("*.c"))
HEADERS = sorted(BUILT.parent.glob("*.h"))
TOOLS = ("gcc", "ld")
TIMEOUT_S = 300
C_FLAGS = (
    *("-O2", "-std=c11", "-m64", "-march=x86-64", "-mtune=generic", "-ffreestanding", "-fPIC", "-fvisibility=hidden"),
    *("-fno-plt", "-fno-stack-protector", "-fcf-protection=none", "-fno-asynchronous-unwind-tables", "-fno-ident"),
    *("-fno-tree-vectorize", "-Wall", "-Wextra", "-Werror"),
)
UNICORN = "libunicorn.so.2"
"""The name by which the loader finds the Unicorn that is there already."""
LINK_FLAGS = (
    *("-shared", "-nostdlib", "-s", "-Wl,--build-id=none", "-Wl,--hash-style=gnu", "-Wl,-z,now", "-Wl,-z,relro"),
    *("-Wl,-z,noexecstack", "-Wl,-z,noseparate-code", "-Wl,--no-as-needed", f"-Wl,-soname,{BUILT.name}"),
)


def build(output: Path) -> None:
    """Put the built library into a file. Raises subprocess.CalledProcessError, with what gcc wrote; FileNotFoundError."""
    with tempfile.TemporaryDirectory() as scratch:
        # The linker wants a library of the name. What it lacks is looked up when ours is loaded.
        stand_in = f"{scratch}/{UNICORN}"
        made = f"{scratch}/{BUILT.name}"
        for command in (
            ["gcc", "-shared", "-nostdlib", f"-Wl,-soname,{UNICORN}", "-o", stand_in, "-x", "c", "/dev/null"],
            ["gcc", *C_FLAGS, *LINK_FLAGS, "-o", made, *map(str, SOURCES), stand_in],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S)
        # A running process has the old one mapped.
        new = output.with_name(f"{output.name}.new")
        new.write_bytes(Path(made).read_bytes())
        new.chmod(0o644)
        new.replace(output)


if __name__ == "__main__":
    try:
        build(BUILT)
    except subprocess.CalledProcessError as failed:
        sys.exit(failed.stderr)
