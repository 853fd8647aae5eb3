# SPDX-License-Identifier: GPL-2.0-or-later
"""The few instructions that run inside the guest, built from the assembly in this directory by build.py.

FIRMWARE is loaded at address 0 and entered at ENTRY; RTAS_SHIM is what instantiate-rtas gives the guest; DEMO is an ELF client
program that is started when there is no kernel. Each is read when it is first used. SCRIPT_GUEST, another such program, is what
tests written with splitvisor.testing run.
"""

from importlib import resources
from pathlib import Path

ENTRY = 0x100
"""Where FIRMWARE is entered: 32 bit, big endian, MSR = ME, r3 = the kernel's entry, r4, r5 = initrd's address and size."""
FROM_DISK = 0
"""In r3, instead of an entry: of_client_service finds a program on a disk and loads it."""
FIRMWARE: bytes
RTAS_SHIM: bytes
DEMO: bytes

SCRIPT_GUEST = Path(__file__).with_name("script_guest.elf")

_FILES = {"FIRMWARE": "of_entry.bin", "RTAS_SHIM": "rtas_shim.bin", "DEMO": "demo.elf"}


def __getattr__(name: str) -> bytes:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    data = resources.files(__name__).joinpath(_FILES[name]).read_bytes()
    globals()[name] = data
    return data
