# SPDX-License-Identifier: GPL-2.0-or-later
"""What somebody says of a disk is read strictly, and every mistake is one line that says what to do."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitvisor.block.nbd.address import NbdAddress
from splitvisor.block.options import (
    Cache,
    DiskOptionError,
    DiskOptions,
    Format,
    OnReadError,
    OnWriteError,
    parse_cdrom,
    parse_disk,
)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("disk.img", DiskOptions(Path("disk.img"))),
        ("a,,b.img", DiskOptions(Path("a,b.img"))),
        ("a,,,readonly", DiskOptions(Path("a,"), read_only=True)),
        ("disk.qcow2", DiskOptions(Path("disk.qcow2"), Format.QCOW2)),
        ("DISK.VHDX", DiskOptions(Path("DISK.VHDX"), Format.VHDX)),
        ("disk.qcow2,format=raw", DiskOptions(Path("disk.qcow2"))),
        ("disk.img,format=vdi", DiskOptions(Path("disk.img"), Format.VDI)),
        ("d,snapshot,serial=S1,cache=none", DiskOptions(Path("d"), snapshot=True, serial="S1", cache=Cache.NONE)),
        ("d,bps=1.5M,iops=200,werror=stop", DiskOptions(Path("d"), bps=3 << 19, iops=200, werror=OnWriteError.STOP)),
        ("d,rerror=stop,werror=enospc", DiskOptions(Path("d"), rerror=OnReadError.STOP)),
        ("d,werror=report", DiskOptions(Path("d"), werror=OnWriteError.REPORT)),
        ("nbd://[::1]:7/a%2Cb", DiskOptions(NbdAddress("a,b", "::1", 7))),
        ("nbd://host", DiskOptions(NbdAddress("", "host", 10809))),
        ("nbd+unix:///disk?socket=/run/n.sock,readonly", DiskOptions(NbdAddress("disk", "", 0, "/run/n.sock"), read_only=True)),
    ],
)
def test_a_text_means(text: str, meant: DiskOptions) -> None:
    assert parse_disk(text) == meant


def test_a_cd_is_only_read() -> None:
    assert parse_cdrom("a.iso") == DiskOptions(Path("a.iso"), read_only=True, cdrom=True)
    assert parse_disk("empty").place == parse_cdrom("./empty").place == Path("empty")
    with pytest.raises(DiskOptionError, match="'readonly' is not an option of a CD; a CD is only read; known: format, serial"):
        parse_cdrom("a.iso,readonly")
    with pytest.raises(DiskOptionError, match="'x' is not an option of a CD; known: format, serial"):
        parse_cdrom("a.iso,x")


KNOWN = "format, serial, cache, bps, iops, readonly, snapshot, werror, rerror"
UNKNOWN = f"'x' is not an option of a disk; known: {KNOWN}; double a comma that is part of a name"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "there is no file; start with the file, such as disk.img,readonly"),
        (",readonly", "there is no file; start with the file, such as disk.img,readonly"),
        ("d,readonyl", "'readonyl' is not an option of a disk; did you mean readonly?"),
        ("d,x", UNKNOWN),
        ("d,readonly,readonly", "readonly is given twice; give it once"),
        ("d,readonly=on", "readonly takes no value; give readonly, or leave it out"),
        ("d,cache", "cache has no value; give cache=writeback"),
        ("d,cache=", "cache has no value; give cache=writeback"),
        ("d,cache=wb", "cache=wb is not possible; give writeback, none, unsafe"),
        ("d,format=qcow3", "format=qcow3 is not possible; did you mean qcow2?"),
        ("d,bps=0", "bps=0 is not a number a second; give 1 to 1024T, such as bps=20M"),
        ("d,iops=-1", "iops=-1 is not a number a second; give 1 to 1024T, such as iops=20M"),
        ("d,bps=2048T", "bps=2048T is not a number a second; give 1 to 1024T, such as bps=20M"),
        ("d,serial=a b", "'a b' is not a serial number; give 1 to 36 printable ASCII characters without spaces"),
        ("d,readonly,snapshot", "readonly and snapshot exclude each other; leave out one"),
        ("nbd://h/e,format=raw", "an NBD server has the format; leave out format="),
        ("nbd://h/e,cache=none", "an NBD server has the cache; leave out cache="),
        ("nbds://h/e", "nbds://h/e cannot be used; give nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=PATH"),
        ("nbd://:7/e", "nbd://:7/e does not say one host; give nbd://HOST:PORT/EXPORT"),
        ("nbd://h:70000/", "nbd://h:70000/ is no URI; give nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=PATH"),
        ("nbd+unix:///e?socket=n", "nbd+unix:///e?socket=n does not say one socket; give nbd+unix:///EXPORT?socket=/PATH"),
        ("https://h/e", "https:// is no place of a disk; give a file, nbd://HOST:PORT/EXPORT or nbd+unix://"),
        ("a\udcff", r"a\xff is not UTF-8; give the path of a link to it"),
        ("a\0", "is no name of a disk; give a file, at most 8192 bytes with its options"),
    ],
)
def test_a_mistake_is_one_line(text: str, line: str) -> None:
    with pytest.raises(DiskOptionError) as raised:
        parse_disk(text)
    assert str(raised.value) == line


FILES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40).filter(lambda text: "://" not in text)
PLACES = st.one_of(
    FILES.map(lambda text: Path("/" + text)),
    st.builds(
        NbdAddress,
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20),
        st.sampled_from(["localhost", "10.0.0.1", "::1"]),
        st.integers(1, 65535),
    ),
)


@given(
    PLACES,
    st.sampled_from(Format),
    st.booleans(),
    st.booleans(),
    st.text(string.ascii_letters + string.punctuation, max_size=36),
    st.sampled_from(Cache),
    st.integers(0, 1 << 50),
    st.integers(0, 1 << 50),
    st.sampled_from(OnWriteError),
    st.sampled_from(OnReadError),
)
def test_what_is_written_is_read_as_the_same(
    place: Path | NbdAddress,
    image: Format,
    read_only: bool,
    snapshot: bool,
    serial: str,
    cache: Cache,
    bps: int,
    iops: int,
    werror: OnWriteError,
    rerror: OnReadError,
) -> None:
    if isinstance(place, NbdAddress):
        image, cache = Format.RAW, Cache.WRITEBACK
    snapshot = snapshot and not read_only
    options = DiskOptions(place, image, read_only, snapshot, serial, cache, bps, iops, werror, rerror)
    assert parse_disk(options.text()) == options


@given(st.text(st.characters(), max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_disk, parse_cdrom):
        refused = None
        try:
            options = parse(text)
        except DiskOptionError as error:
            refused = error.problem
        if refused is None:
            assert parse(options.text()) == options
        else:
            assert refused.what
            assert refused.remedy


def test_a_relative_path_starts_where_it_was_said() -> None:
    assert parse_disk("b.img").absolute(Path("/a")).place == Path("/a/b.img")
    assert parse_disk("/c.img").absolute(Path("/a")).place == Path("/c.img")


@pytest.mark.parametrize("text", ["empty", "empty,serial=CD,,1"])
def test_an_empty_drive_stays_one(text: str) -> None:
    options = parse_cdrom(text)
    assert options.place is None
    assert options.absolute(Path("/a")) == options
    assert options.text() == text
    assert options.name == "empty"


@pytest.mark.parametrize("option", ["format=raw", "cache=none", "bps=1M", "iops=5"])
def test_an_empty_drive_has_nothing_that_is_for_a_medium(option: str) -> None:
    name = option.partition("=")[0]
    with pytest.raises(DiskOptionError, match=f"^{name} is for a medium, and there is none; give it with the medium$"):
        parse_cdrom(f"empty,serial=S,{option}")
