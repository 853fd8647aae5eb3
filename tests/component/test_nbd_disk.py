# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks of NBD servers: what becomes of transfers when the server dies, is slow, or has errors."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import shutil
import signal
from pathlib import Path

import pytest

from splitvisor.block.buffers import Buffers
from splitvisor.block.device import BlockError
from splitvisor.block.nbd.device import Patience
from splitvisor.block.nbd.unflushed import Unflushed
from splitvisor.block.open import DiskError, DiskInUseError
from tests import amounts
from tests.disk_images import (
    SECONDS,
    Nbdkit,
    contents,
    needs_nbdkit,
    needs_qemu,
    opened,
    processes_of,
    qcow2_image,
    raw_image,
    read,
    run,
)

SIZE = 4 << 20


@needs_qemu
@pytest.mark.parametrize("kills", [amounts.examples(30)])
def test_no_acknowledged_write_is_lost_when_qemu_nbd_is_killed(tmp_path: Path, kills: int) -> None:
    """Nor is one doubled after a newer one, though qemu-nbd keeps a qcow2 image's tables in its own memory until a flush."""
    path = qcow2_image(tmp_path / "disk.qcow2", SIZE)
    model = bytearray(SIZE)

    async def test() -> None:
        async with opened(str(path)) as disk:
            killed = asyncio.Event()

            async def writer(number: int, parts: int) -> None:
                source = random.Random(number)
                start, length = SIZE // parts * number, SIZE // parts
                while not killed.is_set():
                    offset = start + source.randrange(length // 512) * 512
                    data = source.randbytes(min(source.choice([512, 4096, 65536]), start + length - offset))
                    what = source.randrange(12)
                    if what == 0:
                        await disk.flush()
                    elif what == 1:
                        await disk.write_zeroes(offset, len(data), True)
                        model[offset : offset + len(data)] = bytes(len(data))
                    else:
                        await disk.write(offset, Buffers.of(data), fua=what == 2)
                        model[offset : offset + len(data)] = data
                    assert await read(disk, offset, len(data)) == model[offset : offset + len(data)]

            async def killer() -> None:
                seen = 0
                for _ in range(kills):
                    while disk.statistics.writes < seen + 25 or not processes_of(path):
                        await asyncio.sleep(0.002)
                    seen = disk.statistics.writes
                    for pid in processes_of(path):
                        os.kill(pid, signal.SIGKILL)
                killed.set()

            await asyncio.gather(killer(), *(writer(number, 8) for number in range(8)))
            assert await read(disk, 0, SIZE) == model
            assert disk.statistics.errors == 0

    run(test)
    assert processes_of(path) == []
    assert contents(path, tmp_path) == model


@needs_qemu
def test_an_image_is_in_one_place_only(tmp_path: Path) -> None:
    path = qcow2_image(tmp_path / "disk.qcow2", SIZE)

    async def test() -> None:
        async with opened(str(path)) as disk:
            with pytest.raises(DiskInUseError) as raised:
                async with opened(str(path)):
                    pass
            assert str(raised.value) == f"{path}: it is in use by another program; end that, or give readonly to both"
            await disk.write(0, Buffers.of(b"\x42" * 512))

            async def target() -> bytes:
                async with opened(str(path), wait_for_lock=SECONDS) as there:
                    return await read(there, 0, 512)

            waiting = asyncio.create_task(target())
            await asyncio.sleep(0)
            await disk.hand_over()
            with pytest.raises(BlockError) as error:
                await disk.read(0, Buffers.of(bytearray(512)))
            assert error.value.errno == errno.EBUSY
            assert await waiting == b"\x42" * 512
            await disk.take_back(SECONDS)
            assert await read(disk, 0, 512) == b"\x42" * 512
        async with opened(f"{path},readonly"), opened(f"{path},readonly"), opened(f"{path},snapshot"):
            pass

    run(test)


@needs_qemu
def test_what_qemu_nbd_cannot_open_is_one_line(tmp_path: Path) -> None:
    path = raw_image(tmp_path / "disk.qcow2", SIZE)

    async def test() -> None:
        with pytest.raises(DiskError) as raised:
            async with opened(str(path)):
                pass
        assert str(raised.value) == f"{path}: qemu-nbd cannot open it as qcow2: Image is not in qcow2 format"

    run(test)
    assert processes_of(path) == []


def test_a_missing_qemu_nbd_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = raw_image(tmp_path / "disk.qcow2", SIZE)
    monkeypatch.setenv("PATH", str(tmp_path))

    async def test() -> None:
        with pytest.raises(DiskError) as raised:
            async with opened(str(path)):
                pass
        what = "qcow2 images need qemu-nbd, which is not installed; apt-get install qemu-utils"
        assert str(raised.value) == f"{path}: {what}"

    run(test)


@needs_qemu
def test_qemu_nbd_ends_with_its_parent(tmp_path: Path) -> None:
    path = qcow2_image(tmp_path / "disk.qcow2", SIZE)
    code = f"""
import asyncio, os, signal
from splitvisor.block.buffers import Buffers
from splitvisor.block.open import open_disk
from splitvisor.block.options import parse_disk
async def main():
    disk = await open_disk(parse_disk({str(path)!r}))
    await disk.write(0, Buffers.of(b"\\x99" * 512))
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""

    async def test() -> None:
        import sys

        child = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
        assert await child.wait() == -signal.SIGKILL
        async with opened(str(path), wait_for_lock=SECONDS) as disk:
            assert await read(disk, 0, 512) == b"\x99" * 512

    run(test)


@needs_nbdkit
def test_requests_wait_for_a_server_that_is_started_again(short_path: Path) -> None:
    raw_image(short_path / "disk.img", SIZE)
    server = Nbdkit(short_path, "file", str(short_path / "disk.img"))

    async def test() -> None:
        await server.start()
        async with opened(server.uri) as disk:
            server.kill()
            data = [os.urandom(4096) for _ in range(8)]
            writes = [asyncio.create_task(disk.write(index * 4096, Buffers.of(each))) for index, each in enumerate(data)]
            done, _ = await asyncio.wait(writes, timeout=0.1)
            assert not done
            await server.start()
            await asyncio.gather(*writes)
            assert await read(disk, 0, 8 * 4096) == b"".join(data)

    run(test)
    server.kill()


@needs_nbdkit
def test_a_server_that_stays_away_is_eio_until_it_is_back(short_path: Path) -> None:
    server = Nbdkit(short_path, "memory", str(SIZE))

    async def test() -> None:
        await server.start()
        async with opened(server.uri, patience=Patience(lost=0.3)) as disk:
            server.kill()
            for _ in range(2):
                with pytest.raises(BlockError) as raised:
                    await disk.read(0, Buffers.of(bytearray(512)))
                assert raised.value.errno == errno.EIO
            await server.start()
            async with asyncio.timeout(SECONDS):
                while True:
                    try:
                        assert await read(disk, 0, 512) == bytes(512)
                        break
                    except BlockError:
                        await asyncio.sleep(0.01)

    run(test)
    server.kill()


@needs_nbdkit
def test_another_export_by_the_same_name_is_not_taken_for_the_disk(short_path: Path) -> None:
    server, larger = Nbdkit(short_path, "memory", str(SIZE)), Nbdkit(short_path, "memory", str(2 * SIZE))

    async def test() -> None:
        await server.start()
        async with opened(server.uri, patience=Patience(lost=0.3)) as disk:
            server.kill()
            await larger.start()
            with pytest.raises(BlockError):
                await disk.read(0, Buffers.of(bytearray(512)))

    run(test)
    larger.kill()


@needs_nbdkit
def test_a_server_that_does_not_answer_is_left_and_its_requests_end(short_path: Path) -> None:
    server = Nbdkit(short_path, "--filter=delay", "memory", str(SIZE), "rdelay=60")

    async def test() -> None:
        await server.start()
        async with opened(server.uri, patience=Patience(lost=0.5, answer=0.5)) as disk:
            with pytest.raises(BlockError) as raised:
                await disk.read(0, Buffers.of(bytearray(512)))
            assert raised.value.errno == errno.EIO
            server.kill()

    run(test)


@needs_nbdkit
def test_a_read_that_is_cancelled_leaves_memory_alone_and_the_disk_goes_on(short_path: Path) -> None:
    server = Nbdkit(short_path, "--filter=delay", "--filter=pattern", "memory", str(SIZE), "rdelay=200ms")
    server = Nbdkit(short_path, "--filter=delay", "pattern", str(SIZE), "rdelay=100ms")

    async def test() -> None:
        await server.start()
        async with opened(f"{server.uri},readonly") as disk:
            expected = await read(disk, 0, 1 << 20)
            for _ in range(3):
                memory = bytearray(1 << 20)
                reads = [asyncio.create_task(disk.read(0, Buffers.of(memory))) for _ in range(4)]
                await asyncio.wait(reads, timeout=0.02)
                for each in reads:
                    each.cancel()
                done, _ = await asyncio.wait(reads, timeout=0.02)
                assert done == set(reads), "a read ends at once"
                memory[:] = b"\x55" * len(memory)
                assert await read(disk, 0, 1 << 20) == expected
                assert memory == b"\x55" * len(memory)

    run(test)
    server.kill()


@needs_nbdkit
@pytest.mark.parametrize(("name", "code"), [("ENOSPC", errno.ENOSPC), ("EIO", errno.EIO), ("EPERM", errno.EROFS)])
def test_errors_of_the_server_are_those_of_the_transfer(short_path: Path, name: str, code: int) -> None:
    trigger = short_path / "fail"
    server = Nbdkit(
        short_path, "--filter=error", "memory", str(SIZE), f"error={name}", "error-rate=100%", f"error-file={trigger}"
    )

    async def room(error: BlockError) -> bool:
        assert error.errno == code
        trigger.unlink()
        return True

    async def test() -> None:
        await server.start()
        async with opened(server.uri) as disk:
            await disk.write(0, Buffers.of(b"\x01" * 512))
            trigger.touch()
            for transfer in (disk.read(0, Buffers.of(bytearray(512))), disk.write(0, Buffers.of(bytes(512)))):
                with pytest.raises(BlockError) as raised:
                    await transfer
                assert raised.value.errno == code
            trigger.unlink()
            assert await read(disk, 0, 512) == b"\x01" * 512
        trigger.touch()
        async with opened(f"{server.uri},werror=stop", on_error=room) as disk:
            await disk.write(0, Buffers.of(b"\x02" * 512))
            assert await read(disk, 0, 512) == b"\x02" * 512

    run(test)
    server.kill()


@needs_nbdkit
@pytest.mark.parametrize(
    ("options", "text", "line"),
    [
        (("-r",), "{uri}", "the NBD server lets nobody write there; give readonly"),
        (("-e", "other", "--filter=exportname"), "{uri}", "the NBD server has no export ''"),
        (("--mask-handshake=0",), "{uri}", "the NBD server is wrong: it has no fixed newstyle negotiation"),
    ],
)
def test_what_a_server_refuses_is_one_line(short_path: Path, options: tuple[str, ...], text: str, line: str) -> None:
    extra = ["exportname-strict=true", "exportname=other"] if "-e" in options else []
    server = Nbdkit(short_path, *options, "memory", str(SIZE), *extra)

    async def test() -> None:
        await server.start()
        with pytest.raises(DiskError) as raised:
            async with opened(text.format(uri=server.uri), patience=Patience(dial=5)):
                pass
        assert str(raised.value).startswith(f"{server.uri.replace('///?', '///?')}: {line}")

    run(test)
    server.kill()


def test_no_server_is_one_line(short_path: Path) -> None:
    async def test() -> None:
        with pytest.raises(DiskError, match="No such file or directory"):
            async with opened(f"nbd+unix:///?socket={short_path}/none"):
                pass

    run(test)


@needs_nbdkit
def test_what_is_not_flushed_is_written_again_and_its_amount_is_bounded(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nbdkit's memory is the extreme: it forgets all of it. What was flushed is the server's to keep, so it is lost here."""
    monkeypatch.setattr("splitvisor.block.nbd.unflushed.KEPT_BYTES", 64 << 10)
    server = Nbdkit(short_path, "memory", str(SIZE))
    largest = 0
    add = Unflushed.add

    def watched(self: Unflushed, write: object) -> None:
        nonlocal largest
        add(self, write)  # type: ignore[arg-type]
        largest = max(largest, sum(len(each.data or b"") for each in self.all()))

    monkeypatch.setattr(Unflushed, "add", watched)

    async def test() -> None:
        await server.start()
        async with opened(server.uri) as disk:
            await disk.write(0, Buffers.of(b"\x01" * 4096))
            await disk.flush()
            await disk.write(4096, Buffers.of(b"\x02" * 4096))
            await disk.write(8192, Buffers.of(b"\x03" * 4096))
            await disk.write(8192, Buffers.of(b"\x04" * 512))
            await disk.write(9216, Buffers.of(b"\x05" * 512), fua=True)
            server.kill()
            await server.start()
            expected = bytes(4096) + b"\x02" * 4096 + b"\x04" * 512 + b"\x03" * 512 + b"\x05" * 512 + b"\x03" * 2560
            assert await read(disk, 0, 12288) == expected
            for index in range(200):
                await disk.write(index * 4096, Buffers.of(bytes(4096)))
            assert largest <= (64 << 10) + 4096

    run(test)
    server.kill()


@needs_nbdkit
def test_over_tcp_too(short_path: Path) -> None:
    import socket

    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            os.set_inheritable(listening.fileno(), True)
            environment = {**os.environ, "LISTEN_FDS": "1"}
            command = "exec 3<&0 </dev/null; LISTEN_PID=$$ exec nbdkit -f memory 4M"
            child = await asyncio.create_subprocess_exec("/bin/sh", "-c", command, stdin=listening.fileno(), env=environment)
            port = listening.getsockname()[1]
        async with opened(f"nbd://localhost:{port}") as disk:
            data = random.Random(1).randbytes(1 << 20)
            await disk.write(512, Buffers.of(data))
            assert await read(disk, 512, 1 << 20) == data
        child.kill()
        await child.wait()

    run(test)


def test_the_programs_of_these_tests_are_there() -> None:
    """As ./dev installs them; without this a run without them would only be short."""
    missing = [program for program in ("qemu-nbd", "qemu-img", "nbdkit") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
