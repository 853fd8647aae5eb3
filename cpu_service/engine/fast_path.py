# SPDX-License-Identifier: GPL-2.0-or-later
"""The native part of the engine's loop and of its exception hook: fast_path.c, as machine code in this package.

Linux takes some 110,000 exceptions and gives as many priority hints while it boots, and most need no decision: the guest's
own exceptions go to its vectors, H_ENTER and H_REMOVE of one page are a few loads and stores, and after a hint it goes on. Python
around them costs more than they do. What the native part does not do it leaves to Python, which can do everything.

`python -m cpu_service.engine.fast_path` builds fast_path.bin, with the machine's own gcc.
"""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import tempfile
from importlib import resources
from pathlib import Path

SOURCE = Path(__file__).with_name("fast_path.c")
BUILT = Path(__file__).with_name("fast_path.bin")
TOOLS = ("gcc", "objcopy")
TIMEOUT_S = 60
C_FLAGS = (
    *("-O2", "-std=c11", "-m64", "-march=x86-64", "-mtune=generic", "-mno-red-zone", "-ffreestanding", "-fno-builtin", "-fPIE"),
    *("-fno-plt", "-fno-stack-protector", "-fcf-protection=none", "-fno-asynchronous-unwind-tables", "-fno-ident"),
    *("-fno-tree-vectorize", "-Wall", "-Wextra", "-Werror"),
)


EXCEPTIONS = 128
"""Numbers of exceptions that are counted."""


class FastPath(ctypes.Structure):
    """What the code works on: `struct fast_path`. Addresses of the engine's own, but for the table's size and the counts."""

    _fields_ = (
        ("gpr", ctypes.c_uint64),
        ("msr", ctypes.c_uint64),
        ("nip", ctypes.c_uint64),
        ("error_code", ctypes.c_uint64),
        ("exception_index", ctypes.c_uint64),
        ("cpu", ctypes.c_uint64),
        ("do_interrupt", ctypes.c_uint64),
        ("tlb_flush", ctypes.c_uint64),
        ("tlb_flush_page", ctypes.c_uint64),
        ("slb", ctypes.c_uint64),
        ("tlb_descriptions", ctypes.c_uint64),
        ("tlb_description_size", ctypes.c_uint64),
        ("modes", ctypes.c_uint64),
        ("slow", ctypes.c_uint64),
        ("emu_start", ctypes.c_uint64),
        ("uc", ctypes.c_uint64),
        ("table", ctypes.c_uint64),
        ("entries", ctypes.c_uint64),
        ("ram_bytes", ctypes.c_uint64),
        ("entered", ctypes.c_uint64),
        ("removed", ctypes.c_uint64),
        ("hints", ctypes.c_uint64),
        ("delivered", ctypes.c_uint64 * EXCEPTIONS),
        ("enabled", ctypes.c_uint64),
        ("stopping", ctypes.c_uint32),
    )


HOOK, RUN = 0, 16
"""Offsets of the code's entries."""


def load_code() -> mmap.mmap:
    """Return memory that holds the code. Raises OSError where memory cannot be made executable."""
    code = resources.files(__package__).joinpath(BUILT.name).read_bytes()
    memory = mmap.mmap(
        -1, len(code), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    )
    memory[: len(code)] = code
    return memory


def build(output: Path) -> None:
    """Put the built code into a file. Raises subprocess.SubprocessError, FileNotFoundError."""
    with tempfile.TemporaryDirectory() as scratch:
        made = f"{scratch}/fast_path.o"
        for command in (
            ["gcc", *C_FLAGS, "-c", "-o", made, str(SOURCE)],
            ["objcopy", "-O", "binary", "-j", ".text.fast", made, str(output)],
        ):
            subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S)
    output.chmod(0o644)


if __name__ == "__main__":
    build(BUILT)
