# SPDX-License-Identifier: GPL-2.0-or-later
"""Raw images: who may have one, and what happens to a disk whose file does not stay as it was."""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import resource
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitvisor.block.buffers import Buffers
from splitvisor.block.device import BlockError
from splitvisor.block.image_file import ImageFile
from splitvisor.block.open import DiskError, DiskInUseError, open_disk
from splitvisor.block.options import parse_cdrom
from splitvisor.block.raw import RawDevice
from splitvisor.process.locks import InUseError
from tests.disk_images import needs_qemu, opened, raw_image, read, run

SIZE = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return raw_image(tmp_path / "disk.img", SIZE)


@pytest.fixture
def small_file_system(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "none", directory], check=False, capture_output=True).returncode:
        pytest.skip("needs root, to mount a small file system")
    yield directory
    subprocess.run(["umount", "-l", directory], check=True)


OTHER = """
import asyncio, sys
from splitvisor.block.open import DiskError, open_disk
from splitvisor.block.options import parse_disk
async def main():
    try:
        disk = await open_disk(parse_disk(sys.argv[1]), wait_for_lock=float(sys.argv[2]))
    except DiskError as error:
        print(error)
    else:
        print("open", flush=True)
        sys.stdin.readline()
        await disk.close()
asyncio.run(main())
"""


def other(text: str, wait: float = 0.0) -> subprocess.Popen[str]:
    """Another process that opens a disk, and closes it with its input."""
    command = [sys.executable, "-c", textwrap.dedent(OTHER), text, str(wait)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("mine", "theirs", "shared"),
    [
        ("", "", False),
        ("", ",readonly", False),
        (",readonly", "", False),
        (",readonly", ",readonly", True),
        (",snapshot", ",readonly", True),
        (",snapshot", ",snapshot", True),
        ("", ",snapshot", False),
    ],
)
def test_two_processes_have_one_image_only_to_read_it(image: Path, mine: str, theirs: str, shared: bool) -> None:
    link = image.parent / "link.img"
    link.symlink_to(image)

    async def test() -> None:
        async with opened(f"{image}{mine}"):
            said = other(f"{link}{theirs}").communicate("\n")[0].strip()
        holder = f"it is in use by process {os.getpid()}; end what uses it, or give readonly to all that use it"
        assert said == ("open" if shared else f"{link}: {holder}")

    run(test)


@needs_qemu
@pytest.mark.parametrize("mine", ["", ",readonly"])
@pytest.mark.parametrize("theirs", ["", "-r"])
def test_qemu_and_splitvisor_have_one_image_only_to_read_it(image: Path, mine: str, theirs: str) -> None:
    shared = bool(mine and theirs)
    command = ["qemu-io", "-f", "raw", *theirs.split(), str(image)]

    async def mine_first() -> None:
        async with opened(f"{image}{mine}") as disk:
            said = subprocess.run([*command, "-c", "read 0 512"], capture_output=True, text=True, check=False).stderr
            assert ('" lock' in said) is not shared
            await disk.hand_over()
            subprocess.run([*command, "-c", "read 0 512"], check=True, stdout=subprocess.DEVNULL)

    async def theirs_first() -> None:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as qemu:
            assert qemu.stdin is not None
            assert qemu.stdout is not None
            print("read 0 512", file=qemu.stdin, flush=True)
            assert "read 512/512" in qemu.stdout.readline()
            if shared:
                async with opened(f"{image}{mine}"):
                    pass
            else:
                with pytest.raises(DiskInUseError, match="it is in use by a program of QEMU; end what uses it"):
                    async with opened(f"{image}{mine}"):
                        pass
            qemu.communicate("quit\n")
        async with opened(f"{image}{mine}"):
            pass

    run(mine_first)
    run(theirs_first)


def test_a_lock_is_gone_with_a_killed_process(image: Path) -> None:
    first = other(str(image))
    assert first.stdout is not None
    assert first.stdout.readline() == "open\n"

    async def refused() -> None:
        with pytest.raises(DiskInUseError):
            async with opened(str(image)):
                pass

    async def taken() -> None:
        async with opened(str(image)):
            pass

    run(refused)
    first.kill()
    first.communicate()
    run(taken)


def test_a_disk_is_handed_over_to_who_waits_for_it(image: Path) -> None:
    async def test() -> None:
        async with opened(str(image)) as disk:
            await disk.write(0, Buffers.of(b"\x77" * 512))
            waiting = asyncio.create_task(RawDevice.open(image, read_only=False, cache=disk.options.cache, wait_for_lock=60))
            await asyncio.sleep(0)
            await disk.hand_over()
            for transfer in (disk.read(0, Buffers.of(bytearray(512))), disk.write(0, Buffers.of(bytes(512))), disk.flush()):
                with pytest.raises(BlockError) as raised:
                    await transfer
                assert raised.value.errno == errno.EBUSY
            target = await waiting
            assert await read(target, 0, 512) == b"\x77" * 512
            with pytest.raises(InUseError):
                await disk.take_back(0)
            await target.hand_over()
            await disk.take_back(60)
            assert await read(disk, 0, 512) == b"\x77" * 512
            await target.close()

    run(test)


def test_a_file_that_becomes_shorter_gives_eio_and_does_not_grow(image: Path) -> None:
    async def test() -> None:
        async with opened(str(image)) as disk:
            await disk.write(SIZE - 512, Buffers.of(b"\x01" * 512))
            os.truncate(image, SIZE // 2)
            transfers = (
                disk.read(SIZE - 4096, Buffers.of(bytearray(4096))),
                disk.read(SIZE // 2 - 512, Buffers.of(bytearray(1024))),
                disk.write(SIZE - 512, Buffers.of(bytes(512))),
                disk.write(SIZE - 512, Buffers.of(bytes(512)), fua=True),
                disk.write_zeroes(SIZE - 512, 512, False),
                disk.discard(SIZE - 512, 512),
            )
            for transfer in transfers:
                with pytest.raises(BlockError) as raised:
                    await transfer
                assert raised.value.errno == errno.EIO
            assert image.stat().st_size == SIZE // 2
            await disk.flush()
            assert await read(disk, 0, 512) == bytes(512)
            assert disk.statistics.errors == len(transfers)

    run(test)


def test_a_full_file_system_is_enospc_and_what_waits_for_room_is_written(small_file_system: Path) -> None:
    path = raw_image(small_file_system / "disk.img", 4 * SIZE)
    ballast = small_file_system / "ballast"
    ballast.write_bytes(bytes(512 << 10))
    paused: list[int] = []

    async def make_room(error: BlockError) -> bool:
        assert error.errno == errno.ENOSPC
        paused.append(error.errno)
        ballast.unlink()
        return True

    async def test() -> None:
        data = os.urandom(768 << 10)
        async with opened(str(path)) as disk:
            with pytest.raises(BlockError) as raised:
                await disk.write(0, Buffers.of(data))
            assert raised.value.errno == errno.ENOSPC
        async with opened(f"{path},werror=stop", on_error=make_room) as disk:
            await disk.write(0, Buffers.of(data))
            assert await read(disk, 0, len(data)) == data
            assert (disk.statistics.errors, disk.statistics.writes) == (1, 1)
        assert paused == [errno.ENOSPC]

    run(test)


def test_a_write_that_is_not_to_be_tried_again_fails(image: Path) -> None:
    asked: list[BlockError] = []

    async def leave(error: BlockError) -> bool:
        asked.append(error)
        return False

    async def test() -> None:
        async with opened(f"{image},werror=stop", on_error=leave) as disk:
            os.truncate(image, 512)
            with pytest.raises(BlockError):
                await disk.write(4096, Buffers.of(bytes(512)))
            assert len(asked) == 1
            with pytest.raises(BlockError):  # Reads are reported whatever werror says.
                await disk.read(4096, Buffers.of(bytearray(512)))
            assert len(asked) == 1

    run(test)


def test_a_file_size_limit_is_an_error_of_the_transfer(image: Path) -> None:
    code = f"""
    import asyncio, resource, signal, sys
    from splitvisor.block.buffers import Buffers
    from splitvisor.block.open import open_disk
    from splitvisor.block.options import parse_disk
    async def main():
        disk = await open_disk(parse_disk({str(image)!r}))
        try:
            await disk.write(8192, Buffers.of(bytes(4096)))
        except OSError as error:
            print(error.errno)
        await disk.close()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, {resource.RLIM_INFINITY}))
    asyncio.run(main())
    """
    said = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True).stdout
    assert said.strip() == str(errno.EFBIG)


@pytest.mark.parametrize("fua", [True, False])
def test_after_a_flush_that_failed_no_other_one_succeeds(image: Path, monkeypatch: pytest.MonkeyPatch, fua: bool) -> None:
    """The kernel says once that it could not write its page cache, be it to a flush or to a write with FUA."""
    failing = iter([OSError(errno.EIO, "Input/output error")])

    def fail(*_: object) -> None:
        for error in failing:
            raise error

    monkeypatch.setattr(ImageFile, "write" if fua else "flush", fail)

    async def test() -> None:
        async with opened(str(image)) as disk:
            with pytest.raises(BlockError, match="Input/output error"):
                await (disk.write(0, Buffers.of(bytes(512)), fua=True) if fua else disk.flush())
            with pytest.raises(BlockError, match="an earlier flush failed") as raised:
                await disk.flush()
            assert raised.value.errno == errno.EIO

    run(test)


@pytest.mark.parametrize("aligned", [True, False])
def test_past_the_page_cache_any_memory_will_do(image: Path, aligned: bool) -> None:
    memory = mmap.mmap(-1, 3 << 20)
    start = 0 if aligned else 100

    async def test() -> None:
        data = os.urandom(SIZE)
        memory[start : start + SIZE] = data
        view = memoryview(memory)
        pieces = [view[start : start + 4096], view[start + 4096 : start + 5000], view[start + 5000 : start + SIZE]]
        async with opened(f"{image},cache=none") as disk:
            await disk.write(0, Buffers(pieces))
            memory[start : start + SIZE] = bytes(SIZE)
            await disk.read(0, Buffers(pieces))
            assert memory[start : start + SIZE] == data
            assert await read(disk, 512, 1024) == data[512:1536]
        assert image.read_bytes() == data

    run(test)


def test_more_pieces_than_a_system_call_takes(image: Path) -> None:
    async def test() -> None:
        data = os.urandom(SIZE)
        pieces = [memoryview(data)[place : place + 256] for place in range(0, SIZE, 256)]
        into = bytearray(SIZE)
        async with opened(str(image)) as disk:
            await disk.write(0, Buffers(pieces))
            await disk.read(0, Buffers(memoryview(into)[place : place + 256] for place in range(0, SIZE, 256)))
        assert into == data == image.read_bytes()

    run(test)


def test_room_is_given_back(image: Path) -> None:
    async def test() -> None:
        async with opened(str(image)) as disk:
            await disk.write(0, Buffers.of(b"\x01" * SIZE))
            await disk.flush()
            full = image.stat().st_blocks
            if not disk.can_discard:
                pytest.skip("the file system of temporary files cannot punch holes")
            await disk.discard(0, SIZE // 2)
            await disk.write_zeroes(SIZE // 2, SIZE // 4, True)
            assert image.stat().st_blocks <= full // 4 + 16
            assert await read(disk, 0, SIZE * 3 // 4) == bytes(SIZE * 3 // 4)
            assert await read(disk, SIZE * 3 // 4, SIZE // 4) == b"\x01" * (SIZE // 4)
        assert image.stat().st_size == SIZE

    run(test)


def test_a_block_device_of_the_host_is_a_disk(image: Path) -> None:
    made = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip("needs root and a free loop device")
    device = made.stdout.strip()

    async def test() -> None:
        for cache in ("writeback", "none"):
            async with opened(f"{device},cache={cache}") as disk:
                await disk.hand_over()
                async with opened(device):
                    pass
                await disk.take_back(0)
                assert disk.size == SIZE
                data = os.urandom(SIZE)
                await disk.write(0, Buffers.of(data))
                await disk.write_zeroes(4096, 8192, True)
                await disk.write_zeroes(16384, 4096, False)
                if disk.can_discard:
                    await disk.discard(SIZE // 2, SIZE // 2)
                await disk.flush()
                half = data[:4096] + bytes(8192) + data[12288:16384] + bytes(4096) + data[20480 : SIZE // 2]
                assert await read(disk, 0, SIZE // 2) == half
                with pytest.raises(DiskInUseError, match="mounted or otherwise in use on this host"):
                    async with opened(device):
                        pass

    try:
        run(test)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_what_is_thrown_away_leaves_nothing(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overlays = tmp_path / "overlays"
    overlays.mkdir()
    monkeypatch.setenv("TMPDIR", str(overlays))

    async def test() -> None:
        async with opened(f"{image},snapshot") as disk:
            await disk.write(1024, Buffers.of(b"\x01" * 512))
            assert await read(disk, 0, 2048) == bytes(1024) + b"\x01" * 512 + bytes(512)
            assert list(overlays.iterdir()) == []
            with pytest.raises(OSError, match="cannot be handed over"):
                await disk.hand_over()
        assert image.read_bytes() == bytes(SIZE)

    run(test)


def test_a_disk_does_no_more_than_it_may(image: Path) -> None:
    async def test() -> None:
        async with opened(f"{image},iops=100,bps=1M") as disk:
            loop = asyncio.get_running_loop()
            began = loop.time()
            await asyncio.gather(*(disk.read(0, Buffers.of(bytearray(512))) for _ in range(130)))
            assert loop.time() - began >= 0.29  # A burst of 100, then 100 a second.
            began = loop.time()
            await disk.write(0, Buffers.of(bytes(SIZE)))
            await disk.write(0, Buffers.of(bytes(SIZE // 4)))
            assert loop.time() - began >= 0.24

    run(test)


def test_a_read_only_disk_is_not_written(image: Path) -> None:
    async def test() -> None:
        async with opened(f"{image},readonly") as disk:
            for transfer in (disk.write(0, Buffers.of(bytes(512))), disk.write_zeroes(0, 512, False), disk.discard(0, 512)):
                with pytest.raises(BlockError) as raised:
                    await transfer
                assert raised.value.errno == errno.EROFS
            await disk.flush()

    run(test)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("missing.img", "missing.img: No such file or directory; correct the name, or make it: truncate -s 4G {}"),
        pytest.param(
            "missing.qcow2",
            "missing.qcow2: No such file or directory; correct the name, or make it: qemu-img create -f qcow2 {} 4G",
            marks=needs_qemu,
        ),
        ("missing.img,readonly", "missing.img: No such file or directory; correct the name"),
        ("directory", "directory: is neither a regular file nor a block device but a directory"),
        ("pipe", "pipe: is neither a regular file nor a block device but a pipe"),
        ("empty.img", "empty.img: it is empty; make it as large as the disk is to be, such as with truncate -s 4G"),
        ("odd.img", "odd.img: it has 1000 bytes, which is no multiple of 512; truncate -s %512 adds what is missing"),
    ],
)
def test_what_is_no_image_is_refused_in_a_line(tmp_path: Path, name: str, line: str) -> None:
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    raw_image(tmp_path / "empty.img", 0)
    raw_image(tmp_path / "odd.img", 1000)

    async def test() -> None:
        with pytest.raises(DiskError) as raised:
            async with opened(str(tmp_path / name)):
                pass
        assert str(raised.value) == f"{tmp_path}/{line.format(tmp_path / name)}"

    run(test)


def test_a_cd_without_contents_is_no_disk_to_make_larger(tmp_path: Path) -> None:
    path = raw_image(tmp_path / "empty.iso", 0)

    async def test() -> None:
        with pytest.raises(DiskError) as raised:
            await open_disk(parse_cdrom(str(path)))
        remedy = "give the image of a CD, or the word empty for a drive with nothing in it"
        assert str(raised.value) == f"{path}: it is empty; {remedy}"

    run(test)


def test_a_transfer_that_is_cancelled_leaves_memory_alone(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that still reads would store into memory that the guest uses for something else by then."""
    import threading

    begun, may_end = threading.Event(), threading.Event()
    inner = ImageFile.read

    def slow(self: ImageFile, offset: int, pieces: list[memoryview]) -> None:
        begun.set()
        may_end.wait(60)
        inner(self, offset, pieces)

    monkeypatch.setattr(ImageFile, "read", slow)

    async def test() -> None:
        async with opened(f"{image},cache=none") as disk:
            data = bytearray(4096)
            reading = asyncio.create_task(disk.read(0, Buffers.of(data)))
            await asyncio.to_thread(begun.wait, 60)
            reading.cancel()
            done, _ = await asyncio.wait([reading], timeout=0.05)
            assert not done, "the thread has the memory"
            may_end.set()
            await asyncio.wait([reading])
            assert reading.cancelled()
            assert disk.statistics.depth == 0

    run(test)
