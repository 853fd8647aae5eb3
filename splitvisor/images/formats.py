# SPDX-License-Identifier: GPL-2.0-or-later
"""What a file that is no PowerPC ELF program is, by its magic numbers, and what to do with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, Final


@dataclass(frozen=True)
class Format:
    """A kind of file that people take for a kernel."""

    magic: bytes
    what: str
    """Completes "FILE ...": what it is."""
    remedy: str
    offset: int = 0
    """Where in the file the magic number is."""


_INITRAMFS = "is an initramfs (cpio), not a kernel"
_GIVE_AS_INITRD = "give it with --initrd, and the kernel with --kernel"
_GIVE_KERNEL = "give a PowerPC ELF kernel: vmlinux"
_PACKAGE = "extract the kernel from it (boot/vmlinux-...), and give that"
_DISK = "a machine boots a kernel, not a disk: extract vmlinux and the initramfs from it, and give those"
_OF_SPLITVISOR = "give it to `splitvisor run --from`, and no --kernel"
_LEGACY = "give the vmlinux that it was made of; `dumpimage -p 0 -o OUT FILE` of u-boot-tools extracts what is in it"

FORMATS: Final = (
    Format(b"HdrS", "is a kernel for x86 (bzImage)", _GIVE_KERNEL, offset=0x202),
    Format(b"ARM\x64", "is a kernel for ARM (AArch64)", _GIVE_KERNEL, offset=0x38),
    Format(b"RSC\x05", "is a kernel for RISC-V", _GIVE_KERNEL, offset=0x38),
    Format(b"\x18\x28\x6f\x01", "is a kernel for ARM (zImage)", _GIVE_KERNEL, offset=0x24),
    Format(b"BZh", "is compressed with bzip2", "unpack it first: bzip2 -dk FILE"),
    Format(b"\x04\x22\x4d\x18", "is compressed with lz4", "unpack it first: lz4 -d FILE OUT"),
    Format(b"\x02\x21\x4c\x18", "is compressed with lz4 (legacy format)", "unpack it first: lz4 -d FILE OUT"),
    Format(b"\x5d\x00\x00", "is compressed with lzma", "unpack it first: xz --format=lzma -dc FILE > OUT"),
    Format(b"LZIP", "is compressed with lzip", "unpack it first: lzip -dk FILE"),
    Format(b"\x89LZO", "is compressed with lzop", "unpack it first: lzop -d FILE"),
    Format(b"\x1f\x9d", "is compressed with compress", "unpack it first: uncompress -k FILE"),
    Format(b"MZ", "is a PE program (EFI, or a kernel of another architecture)", _GIVE_KERNEL),
    Format(b"\x27\x05\x19\x56", "is a U-Boot image (uImage)", _LEGACY),
    Format(b"\xd0\x0d\xfe\xed", "is a flattened device tree, or a U-Boot FIT image", _GIVE_KERNEL),
    Format(b"ANDROID!", "is an Android boot image", _GIVE_KERNEL),
    Format(b"\x01\xdf", "is an XCOFF program (AIX)", _GIVE_KERNEL),
    Format(b"\x01\xf7", "is an XCOFF program (AIX)", _GIVE_KERNEL),
    Format(b"\xfe\xed\xfa", "is a Mach-O program", _GIVE_KERNEL),
    Format(b"070701", _INITRAMFS, _GIVE_AS_INITRD),
    Format(b"070702", _INITRAMFS, _GIVE_AS_INITRD),
    Format(b"070707", _INITRAMFS, _GIVE_AS_INITRD),
    Format(b"!<arch>\ndebian-binary", "is a Debian package", f"{_PACKAGE}: dpkg-deb -x FILE DIR"),
    Format(b"!<arch>\n", "is an ar archive (a static library)", "give a linked program"),
    Format(b"!<thin>\n", "is an ar archive (a static library)", "give a linked program"),
    Format(b"\xed\xab\xee\xdb", "is an RPM package", f"{_PACKAGE}: rpm2cpio FILE | cpio -id"),
    Format(b"PK\x03\x04", "is a zip archive", "extract the kernel from it, and give that"),
    Format(b"hsqs", "is a squashfs image", _DISK),
    Format(b"QFI\xfb", "is a disk image (qcow2)", _DISK),
    Format(b"KDMV", "is a disk image (vmdk)", _DISK),
    Format(b"#!", "is a script", _GIVE_KERNEL),
    Format(b"SVISORSN", "is a snapshot of a machine", _OF_SPLITVISOR),
    Format(b"<", "is a text (HTML or XML): the answer of a web server instead of a kernel?", "fetch the kernel again"),
    Format(b"version https://git-lfs", "is a Git LFS pointer", "fetch the file itself: git lfs pull"),
    Format(b"ustar", "is a tar archive", "extract the kernel from it, and give that", offset=257),
    Format(b"CD001", "is a CD image (ISO 9660)", _DISK, offset=0x8001),
    Format(b"\x53\xef", "is a file system (ext2, ext3 or ext4)", _DISK, offset=0x438),
    Format(b"\x55\xaa", "is a disk image", _DISK, offset=510),
)
"""The first that fits counts: longer magic numbers before shorter ones, those at the start before those further in."""
EMPTY: Final = Format(b"", "is empty", "fetch or build it again")
UNKNOWN: Final = Format(b"", "is not an ELF file", "give a PowerPC ELF kernel: vmlinux, zImage, or a client program")


def format_of(file: BinaryIO) -> Format:
    """Return what a seekable file that is no ELF program is. Raises OSError."""
    if not file.seek(0, 2):
        return EMPTY
    return next((each for each in FORMATS if _at(file, each.offset, len(each.magic)) == each.magic), UNKNOWN)


def _at(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)
