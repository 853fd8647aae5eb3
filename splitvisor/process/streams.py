# SPDX-License-Identifier: GPL-2.0-or-later
"""A process's standard input, output and error: there from the first line on, whatever this process was started with.

Descriptors 0 to 2 that are closed, as daemons and cron jobs may have them, are opened on /dev/null before anything else gets
their numbers: a socket that is called 1 receives what is printed, and libuv aborts over it. Output that cannot be written ends a
program with one line, or with none when its reader has gone. Standard error that cannot be written changes nothing. Text that the
terminal's encoding lacks is shown in another way, and bytes of arguments and paths that were no text come out as the same bytes.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

FAILED = 1
"""Exit status: the output could not be written."""
READER_GONE = 128 + 13
"""Exit status: the reader of the output has gone. A shell says the same of a program that SIGPIPE (13) killed."""
ERRORS = "splitvisor.streams"
"""The name of our error handler, for codecs."""

_READER_GONE = frozenset({errno.EPIPE, errno.ECONNRESET})
"""What a write to a pipe or a socket says when its reader has gone."""
_LOOKALIKES: Mapping[str, str] = {
    **dict.fromkeys("─━═‐‑–—", "-"),
    **dict.fromkeys("│┃║", "|"),
    **dict.fromkeys("╭╮╰╯┌┐└┘├┤┬┴┼┏┓┗┛┡┩╇╞╡╪", "+"),
    **dict.fromkeys("‘’", "'"),
    **dict.fromkeys("“”", '"'),
    "…": "...", "•": "*", "→": "->", "←": "<-", "µ": "u", "×": "x", "\N{NO-BREAK SPACE}": " ",
}  # fmt: skip
"""What our own texts and rich's frames have, for encodings that lack it."""


class OutputError(Exception):
    """Standard output cannot be written. No OSError: nobody is to take it for that of another file.

    Args:
        cause: what the system said.
    """

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause.strerror or str(cause))
        self.reader_gone = cause.errno in _READER_GONE
        """Whether it is only that nobody reads any more."""


class _Output(io.FileIO):
    """Standard output, unbuffered: writes all (what a short write leaves is else lost by `python -u`), to a pipe that does not
    block too."""

    def write(self, data: ReadableBuffer, /) -> int:
        view = memoryview(data).cast("B")
        rest = view
        try:
            while rest:
                written = super().write(rest)
                if written is None:
                    select.select([], [self], [])
                else:
                    rest = rest[written:]
        except OSError as error:
            raise OutputError(error) from error
        return len(view)


class _Lossy(io.FileIO):
    """Standard error, unbuffered: what cannot be written is dropped, for there is no place left to complain in."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            written = super().write(data)
        except OSError:
            written = None
        return memoryview(data).nbytes if written is None else written


def open_standard_streams() -> None:
    """Have descriptors 0 to 2, and sys.stdin, sys.stdout and sys.stderr as this module's docstring says.

    Streams that somebody has put in the place of Python's own stay.
    """
    for descriptor in range(3):
        _open(descriptor)
    codecs.register_error(ERRORS, _replace)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8")
    # Of streams that it lacks, Python has None here too.
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(_Output(1, "w", closefd=False), sys.stdout, line_buffering=os.isatty(1))
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Lossy(2, "w", closefd=False), sys.stderr, line_buffering=True)


@contextmanager
def standard_streams(program: str) -> Iterator[None]:
    """Open the standard streams; when output cannot be written inside the block, end the program.

    Args:
        program: for the line about that.

    Raises SystemExit: READER_GONE or FAILED, also for what is still unwritten when the block ends.
    """
    open_standard_streams()
    try:
        try:
            yield
        except SystemExit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except OutputError as error:
        drop_output()
        if error.reader_gone:
            raise SystemExit(READER_GONE) from None
        print(f"{program}: standard output: {error}", file=sys.stderr)
        raise SystemExit(FAILED) from None


def _open(descriptor: int) -> None:
    """Open a descriptor on /dev/null if it is closed. Those below it are open."""
    try:
        os.fstat(descriptor)
    except OSError:
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # It gets the lowest number that is free, which is this one.


def _text(raw: io.RawIOBase, before: Any, *, line_buffering: bool) -> io.TextIOWrapper:
    encoding = "utf-8" if before is None else before.encoding
    unbuffered = getattr(before, "write_through", False)  # python -u
    buffer: Any = raw if unbuffered else io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, encoding, ERRORS, line_buffering=line_buffering, write_through=unbuffered)


def _replace(error: UnicodeError) -> tuple[bytes, int]:
    """Encode what an encoding lacks: a byte that was no text as itself (PEP 383), a known character as ASCII, others escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return b"".join(map(_as_bytes, text)), error.end


def _as_bytes(character: str) -> bytes:
    if "\udc80" <= character <= "\udcff":
        return character.encode(errors="surrogateescape")
    return _LOOKALIKES.get(character, character).encode("ascii", "backslashreplace")


def drop_output() -> None:
    """Let what is printed and was not written go nowhere, and what is printed from now on: Python writes it when it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
