# SPDX-License-Identifier: GPL-2.0-or-later
"""What the archives of real guests are made of: programs and their libraries, kernel modules and the tables of modprobe."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from splitvisor.guests.apt import GuestError
from splitvisor.guests.elf import ElfError, is_elf, needed, without
from splitvisor.guests.modules import modules_with_dependencies, tables

PROGRAMS = [Path(found) for name in ("bash", "ls", "ip", "gcc", "git") if (found := shutil.which(name)) is not None]
BASH = Path("/bin/bash").read_bytes()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_needed_libraries_are_those_that_readelf_shows(program: Path) -> None:
    if shutil.which("readelf") is None:
        pytest.skip("there is no readelf; it is in the package binutils")
    shown = subprocess.run(["readelf", "-d", program], capture_output=True, text=True, check=True).stdout
    assert needed(program.read_bytes()) == re.findall(r"\(NEEDED\).*\[(.*)\]", shown)


@pytest.mark.parametrize("versions", [True, False], ids=["versions", "no versions"])
def test_a_program_starts_without_a_library(tmp_path: Path, versions: bool) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc")
    (tmp_path / "far.c").write_text("int far(void) { return 42; }")
    (tmp_path / "far.map").write_text("FAR_1 { far; };")
    (tmp_path / "main.c").write_text(
        '#include <stdio.h>\nint far(void);\nint main(int n, char **v) { (void)v; printf("%d\\n", n > 1 ? far() : 7); }'
    )
    script = "-Wl,--version-script=far.map" if versions else "-Wl,--hash-style=gnu"
    for command in (
        f"gcc -shared -fPIC {script} -Wl,-soname,libfar.so.1 far.c -o libfar.so",
        "gcc main.c -Wl,-z,now -L. -lfar -o main",
    ):
        subprocess.run(command.split(), cwd=tmp_path, check=True)
    program = tmp_path / "main"
    program.write_bytes(without(program.read_bytes(), {"libfar.so.1"}))
    assert needed(program.read_bytes()) == ["libc.so.6"]
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("7\n", "")


@example([(38, b"\x00\x80")], 58)
@example([], len(BASH))
@given(st.lists(st.tuples(st.integers(0, 4095), st.binary(min_size=1, max_size=8)), max_size=5), st.integers(0, len(BASH)))
def test_a_broken_program_is_an_error_and_no_more(changes: list[tuple[int, bytes]], length: int) -> None:
    broken = bytearray(BASH[:length])
    for offset, data in changes:
        broken[offset : offset + len(data)] = data
    try:
        names = needed(bytes(broken))
        assert is_elf(bytes(broken))
        without(bytes(broken), names)
    except ElfError:
        pass


def write_module(tree: Path, path: str, **fields: str) -> None:
    file = tree / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"code\0" + b"".join(f"{name}={value}\0".encode() for name, value in fields.items()) + b"more")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "modules.builtin").write_text("kernel/net/ipv6.ko\n")
    write_module(tmp_path, "kernel/a-top.ko", depends="middle,low", softdep="pre: crypto-low soft")
    write_module(tmp_path, "kernel/b/middle.ko", depends="low", alias="fs-middle")
    write_module(tmp_path, "kernel/b/low.ko", depends="", alias="x:y*")
    write_module(tmp_path, "kernel/c/crc.ko", depends="low", alias="crypto-low")
    return tmp_path


def test_modules_come_after_what_they_depend_on(tree: Path) -> None:
    modules = modules_with_dependencies(tree, ["a_top", "ipv6", "crc"])
    assert [module.name for module in modules] == ["low", "middle", "a_top", "crc"]
    with pytest.raises(GuestError, match="no module gone"):
        modules_with_dependencies(tree, ["gone"])


def test_a_line_of_modprobe_ends_with_what_is_loaded_first(tree: Path) -> None:
    found = tables(modules_with_dependencies(tree, ["a_top", "crc"]))
    assert found["modules.dep"].splitlines() == [
        "kernel/b/low.ko:",
        "kernel/b/middle.ko: kernel/b/low.ko",
        "kernel/a-top.ko: kernel/c/crc.ko kernel/b/middle.ko kernel/b/low.ko",
        "kernel/c/crc.ko: kernel/b/low.ko",
    ]
    assert found["modules.alias"].splitlines() == ["alias x:y* low", "alias fs-middle middle", "alias crypto-low crc"]
