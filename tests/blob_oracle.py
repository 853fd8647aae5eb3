# SPDX-License-Identifier: GPL-2.0-or-later
"""Blobs made by breaking real ones, and what splitvisor.tree.fdt and libfdt say of each."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from splitvisor.tree import fdt
from tests.libfdt_oracle import WORD

BATCH = 256
CRASHED = -1000
"""The verdict on a blob that ended the oracle."""
_PROGRAM = Path(__file__).with_name("libfdt_oracle.py")
_WORDS = (0, 1, 2, 3, 4, 5, 9, 16, 17, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFC, 0xFFFFFFFF)
_HEADER_WORDS = 10


def find_python() -> str | None:
    """Return an interpreter that has pylibfdt, or None."""
    for candidate in (sys.executable, "/usr/bin/python3", shutil.which("python3")):
        if candidate is not None:
            command = [candidate, "-P", str(_PROGRAM), "--present"]
            if subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0:
                return candidate
    return None


class Oracle:
    """fdt_check_full in a process of its own, which is started again when a blob has crashed it."""

    def __init__(self, python: str) -> None:
        self._command = [python, "-P", str(_PROGRAM)]
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def verdicts(self, blobs: Sequence[bytes]) -> list[int]:
        """Return 0, libfdt's negative error, or CRASHED for each blob."""
        found: list[int] = []
        while len(found) < len(blobs):
            found += self._ask(blobs[len(found) :])
            if len(found) < len(blobs):
                self.close()
                found.append(CRASHED)
                self._process = self._start()
        return found

    def _ask(self, blobs: Sequence[bytes]) -> Iterator[int]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        data = b"".join(WORD.pack(len(blob)) + blob for blob in blobs)
        writer = threading.Thread(target=self._write, args=(data,))
        writer.start()
        for _ in blobs:
            answer = self._process.stdout.read(WORD.size)
            if len(answer) < WORD.size:
                break
            yield WORD.unpack(answer)[0]
        writer.join()

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # It crashed; whoever reads its answers notices.
            self._process.stdin.write(data)
            self._process.stdin.flush()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()


@dataclass
class Comparison:
    """What came of a number of blobs."""

    both_accept: int = 0
    both_refuse: int = 0
    only_we_refuse: Counter[str] = field(default_factory=Counter)
    """By check: libfdt accepts what we refuse."""
    only_libfdt_refuses: list[tuple[int, bytes]] = field(default_factory=list)
    """Its verdict and the blob."""
    slowest: float = 0.0
    """Most CPU seconds for a blob, per 64 KiB of it or part of that."""

    def __iadd__(self, other: Comparison) -> Comparison:
        self.both_accept += other.both_accept
        self.both_refuse += other.both_refuse
        self.only_we_refuse += other.only_we_refuse
        self.only_libfdt_refuses += other.only_libfdt_refuses
        self.slowest = max(self.slowest, other.slowest)
        return self


def compare(python: str, originals: Sequence[bytes], seed: int, count: int) -> Comparison:
    """Mutate originals count times, the same way for the same seed, and hold every verdict against libfdt's."""
    generator = random.Random(seed)
    oracle = Oracle(python)
    result = Comparison()
    try:
        for start in range(0, count, BATCH):
            blobs = [mutate(generator, originals) for _ in range(min(BATCH, count - start))]
            for blob, verdict in zip(blobs, oracle.verdicts(blobs), strict=True):
                _judge(result, blob, verdict)
    finally:
        oracle.close()
    return result


def _judge(result: Comparison, blob: bytes, verdict: int) -> None:
    check = ""
    started = time.thread_time()
    try:
        fdt.read(blob)
    except fdt.FdtError as error:
        check = error.check
    result.slowest = max(result.slowest, (time.thread_time() - started) / max(1.0, len(blob) / (64 << 10)))
    if not check:
        if verdict:
            result.only_libfdt_refuses.append((verdict, blob))
        else:
            result.both_accept += 1
    elif verdict:
        result.both_refuse += 1
    else:
        result.only_we_refuse[check] += 1


def mutate(generator: random.Random, originals: Sequence[bytes]) -> bytes:
    """Return one of the originals with one to three things changed."""
    blob = bytearray(generator.choice(originals))
    for _ in range(generator.choice((1, 1, 1, 2, 3))):
        if len(blob) >= 4 * _HEADER_WORDS:
            generator.choice(_MUTATIONS)(generator, blob)
    return bytes(blob)


def _bit(generator: random.Random, blob: bytearray) -> None:
    blob[generator.randrange(len(blob))] ^= 1 << generator.randrange(8)


def _byte(generator: random.Random, blob: bytearray) -> None:
    blob[generator.randrange(len(blob))] = generator.randrange(256)


def _letter(generator: random.Random, blob: bytearray) -> None:
    """In the strings block: names that stay names."""
    strings, size = struct.unpack_from(">I", blob, 12)[0], struct.unpack_from(">I", blob, 32)[0]
    if size > 0 and strings + size <= len(blob):
        blob[strings + generator.randrange(size)] = generator.choice(b"abcdefgh,-#/ \0\x7f")


def _word(generator: random.Random, blob: bytearray) -> None:
    offset = 4 * generator.randrange(len(blob) // 4)
    struct.pack_into(">I", blob, offset, generator.choice((*_WORDS, len(blob))))


def _header_word(generator: random.Random, blob: bytearray) -> None:
    offset = 4 * generator.randrange(_HEADER_WORDS)
    (value,) = struct.unpack_from(">I", blob, offset)
    changes = (value + generator.choice((-16, -8, -4, -1, 1, 4, 8, 16)), generator.choice(_WORDS), generator.randrange(len(blob)))
    struct.pack_into(">I", blob, offset, generator.choice(changes) & 0xFFFFFFFF)


def _tag(generator: random.Random, blob: bytearray) -> None:
    """Exchange one tag for another."""
    offset = _some_tag(generator, blob)
    if offset is not None:
        struct.pack_into(">I", blob, offset, generator.choice((1, 2, 3, 4, 9)))


def _some_tag(generator: random.Random, blob: bytearray) -> int | None:
    start = struct.unpack_from(">I", blob, 8)[0] & ~3
    begin = start + 4 * generator.randrange(max(1, (len(blob) - start) // 4)) if start < len(blob) else len(blob)
    for offset in range(begin, min(len(blob) - 3, begin + 256), 4):
        if blob[offset : offset + 3] == b"\0\0\0" and blob[offset + 3] in (1, 2, 3, 4):
            return offset
    return None


def _resize(generator: random.Random, blob: bytearray) -> None:
    """Take a piece out of the structure block, or put one in, with a header that agrees."""
    offset, other = _some_tag(generator, blob), _some_tag(generator, blob)
    if offset is None or other is None:
        return
    length = 4 * generator.randrange(1, 8)
    if generator.random() < 0.5:
        piece = bytes(blob[other : other + length])
        blob[offset:offset] = piece
        change = len(piece)
    else:
        change = -len(blob[offset : offset + length])
        del blob[offset : offset + length]
    # totalsize, the strings block's offset when it lies behind, and the structure block's size.
    for field_offset in (4, 12, 36):
        (value,) = struct.unpack_from(">I", blob, field_offset)
        if field_offset != 12 or value > offset:
            struct.pack_into(">I", blob, field_offset, (value + change) & 0xFFFFFFFF)


def _cut(generator: random.Random, blob: bytearray) -> None:
    del blob[generator.randrange(len(blob)) :]
    if len(blob) >= 8 and generator.random() < 0.7:
        struct.pack_into(">I", blob, 4, len(blob))


def _extend(generator: random.Random, blob: bytearray) -> None:
    blob += bytes(generator.randrange(1, 64))
    if generator.random() < 0.5:
        struct.pack_into(">I", blob, 4, len(blob))


_MUTATIONS: tuple[Callable[[random.Random, bytearray], None], ...] = (
    _bit, _byte, _letter, _word, _header_word, _tag, _tag, _resize, _resize, _cut, _extend,
)  # fmt: skip
