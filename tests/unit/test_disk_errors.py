# SPDX-License-Identifier: GPL-2.0-or-later
"""What a disk does about an error of the host: `werror` and `rerror`, for every kind of transfer."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from splitvisor.block.buffers import Buffers
from splitvisor.block.device import BlockError
from splitvisor.block.disk import Disk
from splitvisor.block.options import DiskOptions, OnReadError, OnWriteError, parse_disk
from tests.memory_disk import MemoryDisk

STOP, REPORT, ENOSPC = OnWriteError.STOP, OnWriteError.REPORT, OnWriteError.ENOSPC
Transfer = Callable[[Disk], Coroutine[Any, Any, None]]
WRITES: dict[str, Transfer] = {
    "write": lambda disk: disk.write(0, Buffers.of(b"x" * 512)),
    "flush": lambda disk: disk.flush(),
    "zeroes": lambda disk: disk.write_zeroes(0, 512, True),
    "discard": lambda disk: disk.discard(0, 512),
}


async def end(options: DiskOptions, transfer: Transfer, code: int) -> tuple[list[int], int]:
    """Make a transfer that fails until somebody puts that right.

    Returns the errors that somebody was asked about, and the one that it ended with; 0: it succeeded.
    """
    below = MemoryDisk(4096)
    below.error = code
    asked: list[int] = []

    async def put_right(error: BlockError) -> bool:
        asked.append(error.errno or 0)
        below.error = None if len(asked) == 2 else code
        return True

    disk = Disk(below, options, put_right)
    result = 0
    try:
        await transfer(disk)
    except BlockError as error:
        result = error.errno or 0
    assert (disk.statistics.errors, disk.statistics.depth) == (len(asked) or 1, 0)
    return asked, result


@pytest.mark.parametrize("kind", WRITES)
@pytest.mark.parametrize(
    ("werror", "code", "stops"),
    [
        (STOP, errno.ENOSPC, True), (STOP, errno.EIO, True), (STOP, errno.EBUSY, False),
        (ENOSPC, errno.ENOSPC, True), (ENOSPC, errno.EDQUOT, True), (ENOSPC, errno.EIO, False),
        (REPORT, errno.ENOSPC, False), (REPORT, errno.EIO, False),
    ],
)  # fmt: skip
def test_a_change_that_failed(kind: str, werror: OnWriteError, code: int, stops: bool) -> None:
    options = DiskOptions(Path("disk"), werror=werror, rerror=OnReadError.STOP if werror is REPORT else OnReadError.REPORT)
    assert asyncio.run(end(options, WRITES[kind], code)) == (([code] * 2, 0) if stops else ([], code))


@pytest.mark.parametrize(
    ("rerror", "code", "stops"),
    [
        (OnReadError.STOP, errno.EIO, True),
        (OnReadError.STOP, errno.EBUSY, False),
        (OnReadError.REPORT, errno.EIO, False),
        (OnReadError.REPORT, errno.ENOSPC, False),
    ],
)
def test_a_read_that_failed(rerror: OnReadError, code: int, stops: bool) -> None:
    options = DiskOptions(Path("disk"), werror=REPORT if stops else STOP, rerror=rerror)
    found = asyncio.run(end(options, lambda disk: disk.read(0, Buffers.of(bytearray(512))), code))
    assert found == (([code] * 2, 0) if stops else ([], code))


def test_without_options_a_full_host_stops_and_other_errors_are_reported() -> None:
    options = parse_disk("disk.img")
    assert (options.werror, options.rerror) == (ENOSPC, OnReadError.REPORT)
    assert options.text() == "disk.img,format=raw"
