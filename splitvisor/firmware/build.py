# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds what runs in the guest, with Debian's cross tools: `python -m splitvisor.firmware.build`.

The built files are committed, so nobody needs the tools to run Splitvisor; a test builds them again and compares.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent
PREFIX = "powerpc64-linux-gnu-"
TOOLS = tuple(PREFIX + tool for tool in ("as", "ld", "objcopy", "gcc"))
TIMEOUT_S = 60
PROGRAM_ADDRESS = 0x200000
"""Where both client programs are linked."""

BUILT = ("of_entry.bin", "rtas_shim.bin", "demo.elf", "script_guest.elf")

C_FLAGS = (
    *("-m32", "-mbig-endian", "-mcpu=powerpc", "-msoft-float", "-O1", "-std=c11", "-ffreestanding", "-fno-builtin"),
    *("-fno-pic", "-fno-pie", "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-fno-ident"),
    *("-fno-tree-loop-distribute-patterns", "-Wall", "-Wextra", "-Werror"),
)


def build(output: Path) -> None:
    """Put of_entry.bin, rtas_shim.bin, demo.elf and script_guest.elf into a directory.

    Raises subprocess.SubprocessError and FileNotFoundError.
    """
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("of_entry", "rtas_shim"):
            _raw(name, Path(scratch), output)
        _demo(Path(scratch), output)
        _script_guest(Path(scratch), output)
    for name in BUILT:
        (output / name).chmod(0o644)


def _raw(name: str, scratch: Path, output: Path) -> None:
    made, linked, image = scratch / f"{name}.o", scratch / f"{name}.elf", output / f"{name}.bin"
    _run("as", "-mbig", "-a64", "-mpower8", "-mregnames", "-o", made, SOURCES / f"{name}.S")
    _run("ld", "-EB", "-m", "elf64ppc", "-Ttext=0", "-e", "_start", "-o", linked, made)
    _run("objcopy", "-O", "binary", "-j", ".text", linked, image)


def _demo(scratch: Path, output: Path) -> None:
    made, linked = scratch / "demo.o", scratch / "demo.elf"
    _run("gcc", *C_FLAGS, "-I", SOURCES, "-c", "-o", made, SOURCES / "demo.c")
    _link("elf32ppclinux", made, linked)
    _run("objcopy", "--strip-all", "--remove-section=.comment", "--remove-section=.gnu.attributes", linked, output / "demo.elf")


def _script_guest(scratch: Path, output: Path) -> None:
    made, linked = scratch / "script_guest.o", scratch / "script_guest.elf"
    _run("as", "-mbig", "-a64", "-mpower8", "-mregnames", "-o", made, SOURCES / "script_guest.S")
    _link("elf64ppc", made, linked)
    _run("objcopy", "--strip-all", linked, output / "script_guest.elf")


def _link(emulation: str, made: Path, linked: Path) -> None:
    """Link a guest program to run where Splitvisor's firmware loads it."""
    options = ("-EB", "-m", emulation, "-N", "-z", "noexecstack", "--build-id=none", "-e", "_start")
    _run("ld", *options, f"-Ttext={PROGRAM_ADDRESS:#x}", "-o", linked, made)


def _run(tool: str, *arguments: str | Path) -> None:
    subprocess.run([PREFIX + tool, *arguments], check=True, capture_output=True, timeout=TIMEOUT_S)


if __name__ == "__main__":
    build(SOURCES)
