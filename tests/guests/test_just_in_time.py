# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that writes its own code: Node.js of Debian, whose compiled code must compute what its interpreter does.

Node.js and its libraries are 25 MB to fetch, and run for a minute: with `--long`, or with SPLITVISOR_COMPILERS set.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from splitvisor.guests.apt import ForeignApt, GuestError
from splitvisor.guests.cpio import Entry, archive
from splitvisor.guests.fetch import cache_directory
from tests.guests.conftest import Run
from tests.guests.harness import Guests

PACKAGES = (
    *("nodejs", "libnode108", "libc6", "libgcc-s1", "libstdc++6", "libbrotli1", "libc-ares2", "libicu72", "libnghttp2-14"),
    *("libssl3", "libuv1", "zlib1g", "node-acorn", "node-cjs-module-lexer", "node-busboy", "node-undici", "busybox-static"),
)
LEFT_OUT = ("usr/share/doc", "usr/share/man", "usr/share/lintian", "usr/share/locale", "usr/lib/powerpc64le-linux-gnu/gconv")
PROGRAM = Path(__file__).with_name("just_in_time.js")
ROUNDS = 2
WAYS = {
    "interpreted": "--jitless",
    "compiled": "",
    "moved by the collector": "--gc-interval=5000 --stress-compaction",
}
SECONDS = 600.0

pytestmark = pytest.mark.skipif("SPLITVISOR_COMPILERS" not in os.environ, reason="takes a minute; run it with --long")


def node_archive(directory: Path) -> Path:
    """Return an initramfs with Node.js, made once and kept beside the other guests. Raises GuestError."""
    kept = cache_directory() / "test-node.cpio"
    if not kept.exists():
        apt = ForeignApt(directory / "apt", "ppc64el")
        apt.update()
        root = directory / "root"
        root.mkdir()
        for package in PACKAGES:
            subprocess.run(["dpkg-deb", "-x", apt.download(package), root], check=True, timeout=300)
        entries = [Entry.directory(name) for name in ("dev", "proc")]
        for path in sorted(root.rglob("*")):
            name = str(path.relative_to(root))
            if path.is_symlink():
                entries.append(Entry.link(name, os.readlink(path)))
            elif path.is_dir():
                entries.append(Entry.directory(name))
            elif not name.startswith(LEFT_OUT):
                entries.append(Entry.program(name, path.read_bytes()))
        entries += [Entry.character_device("dev/console", 5, 1), Entry.character_device("dev/null", 1, 3)]
        partial = directory / kept.name
        partial.write_bytes(archive(entries))
        shutil.move(partial, kept)
    return kept


def script() -> bytes:
    """An initramfs of its own, which the kernel unpacks after the first: what to run."""
    lines = [f"echo WAY {name}; node {options} /test.js {ROUNDS}" for name, options in WAYS.items()]
    init = (
        "#!/bin/busybox sh",
        "/bin/busybox mount -t proc proc /proc",
        "/bin/busybox mount -t devtmpfs dev /dev",
        "export PATH=/usr/bin NO_COLOR=1",
        *lines,
        "echo END",
        "/bin/busybox poweroff -f",
    )
    return archive([Entry.program("init", "\n".join(init).encode() + b"\n"), Entry.program("test.js", PROGRAM.read_bytes())])


def test_compiled_code_computes_what_the_interpreter_does(run: Run, guests: Guests, tmp_path: Path, short_path: Path) -> None:
    try:
        node = node_archive(tmp_path)
    except GuestError as error:
        pytest.skip(f"no Node.js for ppc64el: {error}")
    initrd = short_path / "node.cpio"
    initrd.write_bytes(node.read_bytes() + script())
    console = run("--memory", "1G", "--kernel", str(guests.kernel), "--initrd", str(initrd), "--append", "console=hvc0 quiet")
    console.expect("^END", SECONDS)
    assert console.wait() == 0
    digests = re.findall(r"^DIGEST (\d+)\r?$", console.text, re.MULTILINE)
    assert len(digests) == len(WAYS), console.text[-2000:]
    assert len(set(digests)) == 1, dict(zip(WAYS, digests, strict=True))
    initrd.unlink()
