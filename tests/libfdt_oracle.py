# SPDX-License-Identifier: GPL-2.0-or-later
"""libfdt's opinion of blobs, as a program: lengths and blobs on stdin, one verdict each on stdout.

A program of its own, because what it is asked about may crash it, and because pylibfdt belongs to the system's Python.
"""

from __future__ import annotations

import os
import struct
import sys

WORD = struct.Struct("<i")


def main() -> None:
    """Answer until stdin ends."""
    import libfdt  # the one who starts this program may not have it

    stdin = sys.stdin.buffer
    if sys.argv[1:] == ["--present"]:
        return
    while True:
        header = stdin.read(WORD.size)
        if len(header) < WORD.size:
            return
        blob = bytearray(stdin.read(WORD.unpack(header)[0]))
        os.write(1, WORD.pack(libfdt.fdt_check_full(blob, len(blob))))


if __name__ == "__main__":
    main()
