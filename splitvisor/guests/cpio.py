# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes initramfs archives: cpio in the "newc" format (Linux, Documentation/driver-api/early-userspace/buffer-format.rst)."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

_TRAILER = "TRAILER!!!"


@dataclass(frozen=True)
class Entry:
    """A file of the archive. Owner is root, time is 0, so the same files give the same archive."""

    name: str
    """Without a leading slash."""
    mode: int
    """Type and permissions."""
    data: bytes = b""
    """Contents; a symbolic link's target."""
    device: tuple[int, int] = (0, 0)
    """Major and minor number of a device node."""

    @classmethod
    def directory(cls, name: str) -> Entry:
        """Make a directory."""
        return cls(name, stat.S_IFDIR | 0o755)

    @classmethod
    def program(cls, name: str, data: bytes) -> Entry:
        """Make an executable file."""
        return cls(name, stat.S_IFREG | 0o755, data)

    @classmethod
    def file(cls, name: str, data: bytes) -> Entry:
        """Make a file that is read."""
        return cls(name, stat.S_IFREG | 0o644, data)

    @classmethod
    def link(cls, name: str, target: str) -> Entry:
        """Make a symbolic link."""
        return cls(name, stat.S_IFLNK | 0o777, target.encode())

    @classmethod
    def character_device(cls, name: str, major: int, minor: int) -> Entry:
        """Make a device node."""
        return cls(name, stat.S_IFCHR | 0o600, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """Return the archive; directories must come before what is in them."""
    parts = [_record(inode, entry) for inode, entry in enumerate(entries, start=1)]
    parts.append(_record(0, Entry(_TRAILER, 0)))
    return b"".join(parts)


def _record(inode: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % value for value in fields)
    return _padded(header + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
