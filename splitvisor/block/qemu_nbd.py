# SPDX-License-Identifier: GPL-2.0-or-later
"""Images in formats of others: Debian's qemu-nbd, a process for each connection, has the image and speaks NBD.

The socket is made here and listens before the process runs, so that nobody waits for it, and its name is gone as soon as it is
connected to: nothing is left behind, however this process ends. qemu-nbd serves one connection and ends with it; it is asked to
end (SIGTERM, so that it writes its tables) when this process is killed. It holds QEMU's own locks of images.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

from splitvisor.block.child import Child
from splitvisor.block.options import Cache, Format
from splitvisor.process.files import WrongFileError, found_at, require_regular
from splitvisor.process.locks import InUseError
from splitvisor.process.logging import get_logger

log = get_logger(__name__)

PROGRAM = "qemu-nbd"
END_SECONDS = 10.0
"""For the process to write what it has and end, before it is killed."""
_START = 'LISTEN_PID=$$ LISTEN_FDS=1; export LISTEN_PID LISTEN_FDS; exec 3<&0 </dev/null "$@"'
"""sd_listen_fds(3): the socket is descriptor 3, and the number of the process is in the environment."""


class QemuNbd:
    """A Dialer for an image.

    Args:
        path: of the image.
        image_format: what it is.
        read_only: it is not written; others may read it too.
        cache: of the host.
    """

    export = ""

    def __init__(self, path: Path, image_format: Format, *, read_only: bool, cache: Cache = Cache.WRITEBACK) -> None:
        self.name = str(path)
        self._path, self._format, self._read_only, self._cache = path, image_format, read_only, cache
        self._child: Child | None = None

    def check(self) -> None:
        """Raise OSError for what can be said before a process is started."""
        found = found_at(self._path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.name)
        require_regular(found, self._path)
        if not os.access(self._path, os.R_OK if self._read_only else os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), self.name)
        for program in (PROGRAM, "setpriv"):
            if shutil.which(program) is None:
                package = "qemu-utils" if program == PROGRAM else "util-linux"
                what = f"{self._format} images need {program}, which is not installed; apt-get install {package}"
                raise FileNotFoundError(errno.ENOENT, what, self.name)

    async def connect(self) -> socket.socket:
        """Start a process and return a socket to it. Raises OSError."""
        self.check()
        server = socket.socket(socket.AF_UNIX)
        client = socket.socket(socket.AF_UNIX)
        try:
            directory = tempfile.mkdtemp(prefix="splitvisor-disk-")  # Of this user only.
            try:
                server.bind(f"{directory}/nbd")
                server.listen(1)
                client.connect(f"{directory}/nbd")  # The kernel does it at once.
            finally:
                shutil.rmtree(directory, ignore_errors=True)
            client.setblocking(False)
            self._child = Child(["/bin/sh", "-c", _START, "sh", *self._command()], server.fileno(), self._says)
        except BaseException:
            client.close()
            raise
        finally:
            server.close()
        return client

    def _command(self) -> list[str]:
        writes = ["--read-only"] if self._read_only else ["--discard=unmap"]
        return [
            # A signal when the parent's thread ends, and no way to more rights.
            *("setpriv", "--pdeathsig", "TERM", "--no-new-privs", "--"),
            *(PROGRAM, f"--format={self._format}", f"--cache={self._cache}", *writes, "--", os.path.abspath(self._path)),
        ]

    async def explain(self, error: OSError) -> OSError:
        """Return what the process said, when it ended without serving."""
        if self._child is None:
            return error
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._child.ended.wait()
        lines = [line.strip() for line in self._child.said.decode(errors="replace").splitlines() if line.strip()]
        if not lines:
            return error
        if " lock" in lines[0]:
            return InUseError("it is in use by another program; end that, or give readonly to both", self._path)
        prefix = re.compile(r"^qemu-nbd: |Failed to blk_new_open '[^']*': ")
        return WrongFileError(f"{PROGRAM} cannot open it as {self._format}: {prefix.sub('', lines[0])}", self._path)

    async def hung_up(self) -> None:
        """End the process; it lets go of the image's lock."""
        child, self._child = self._child, None
        if child is not None:
            await child.end(END_SECONDS)

    def _says(self, data: bytes) -> None:
        log.warning(f"{PROGRAM} says", disk=self.name, text=data.decode(errors="replace").strip())
