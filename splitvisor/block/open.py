# SPDX-License-Identifier: GPL-2.0-or-later
"""From what somebody wants of a disk to the disk."""

from __future__ import annotations

import errno
import os
import shlex
import socket
from pathlib import Path

from splitvisor.block.device import BlockDevice
from splitvisor.block.disk import Disk, OnError
from splitvisor.block.image_file import EmptyFileError
from splitvisor.block.nbd.address import NbdAddress
from splitvisor.block.nbd.device import NbdDevice, Patience
from splitvisor.block.options import DiskOptions, Format
from splitvisor.block.overlay import Overlay
from splitvisor.block.qemu_nbd import QemuNbd
from splitvisor.block.raw import RawDevice
from splitvisor.errors.problem import ProblemError
from splitvisor.process.locks import InUseError


class DiskError(ProblemError):
    """A disk cannot be opened. One line: which, what is wrong, what to do."""


class DiskInUseError(DiskError):
    """Somebody else has the image."""


async def open_disk(
    options: DiskOptions,
    *,
    wait_for_lock: float = 0.0,
    on_error: OnError | None = None,
    patience: Patience | None = None,
) -> Disk:
    """Return a disk, open.

    Args:
        options: what is wanted, with an absolute path.
        wait_for_lock: seconds in which another process may still let go of the image, as the source of a migration does.
        on_error: what to do about a failed write with werror=stop.
        patience: deadlines of an NBD server.

    Raises DiskError.
    """
    try:
        below = await _below(options, wait_for_lock, patience)
        try:
            if options.snapshot:
                below = await Overlay.over(below)
            return Disk(below, options, on_error)
        except BaseException:
            await below.close()
            raise
    except InUseError as error:
        remedy = "end what uses it, or give readonly to all that use it"
        raise DiskInUseError(f"{options.name}: {error.strerror}", "" if ";" in str(error.strerror) else remedy) from None
    except OSError as error:
        raise DiskError(f"{options.name}: {error.strerror or error}", _remedy(error, options)) from None


def _remedy(error: OSError, options: DiskOptions) -> str:
    if isinstance(error, EmptyFileError):
        return _NO_MEDIUM if options.cdrom else f"make it as large as the disk is to be, such as with {_MAKE}"
    if error.strerror == os.strerror(errno.ENOENT) and isinstance(options.place, Path):  # Not: a program is missing.
        if options.read_only or options.snapshot:
            return "correct the name"
        raw = options.format is Format.RAW
        make = f"{_MAKE} {{}}" if raw else f"qemu-img create -f {options.format} {{}} 4G"
        return f"correct the name, or make it: {make.format(shlex.quote(options.name))}"
    return _REMEDIES.get(error.errno or 0, "")


_MAKE = "truncate -s 4G"
_NO_MEDIUM = "give the image of a CD, or the word empty for a drive with nothing in it"
_REMEDIES = {
    errno.EACCES: "give a file that this user may write, or readonly",
    errno.EROFS: "give readonly",
    errno.ECONNREFUSED: "start the NBD server, then try again",
}


async def _below(options: DiskOptions, wait_for_lock: float, patience: Patience | None) -> BlockDevice:
    read_only = options.read_only or options.snapshot
    place = options.place
    if isinstance(place, NbdAddress):
        return await NbdDevice.open(_Server(place), read_only=read_only, patience=patience)
    if place is None:
        raise ValueError("an empty drive has no disk")
    path = Path(place)
    if options.format is Format.RAW:
        return await RawDevice.open(path, read_only=read_only, cache=options.cache, wait_for_lock=wait_for_lock)
    image = QemuNbd(path, options.format, read_only=read_only, cache=options.cache)
    return await NbdDevice.open(image, read_only=read_only, patience=patience, wait_for_lock=wait_for_lock)


class _Server:
    """A Dialer for a server that runs already."""

    def __init__(self, address: NbdAddress) -> None:
        self._address = address
        self.name, self.export = str(address), address.export

    async def connect(self) -> socket.socket:
        return await self._address.connect()

    async def explain(self, error: OSError) -> OSError:
        return error

    async def hung_up(self) -> None:
        pass
