# SPDX-License-Identifier: GPL-2.0-or-later
"""Values of device-tree properties (IEEE 1275, 2.3.4: property encoding)."""

from __future__ import annotations

import struct


def cells(*words: int) -> bytes:
    """Encode 32-bit cells, big-endian. Raises struct.error for a number that does not fit."""
    return struct.pack(f">{len(words)}I", *words)


def double_cells(*values: int) -> bytes:
    """Encode numbers of two cells each. Raises struct.error for a number that does not fit."""
    return struct.pack(f">{len(values)}Q", *values)


def strings(*texts: str) -> bytes:
    """Encode strings, each with its NUL."""
    return b"".join(text.encode() + b"\0" for text in texts)
