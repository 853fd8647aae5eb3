# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's driver of vty-servers has the consoles of VTYs: one of its own VM, and one of another."""

from __future__ import annotations

from pathlib import Path

import pytest

from splitvisor.guests.cpio import Entry, archive
from splitvisor.guests.fetch import VTERM_MODULES
from tests.guests.conftest import Run
from tests.guests.harness import BOOT_SECONDS, Console, Guests
from tests.services import Service

PROMPT = "guest# "
APPEND = ("--append", "console=hvc0 panic=-1")
DRIVER = " && ".join(f"insmod /{name}.ko" for name in VTERM_MODULES)
SERVER = "/sys/bus/vio/drivers/hvcs/71000002"
VTY = '[[device]]\nkind = "vty"\n'


@pytest.fixture
def initrd(guests: Guests, tmp_path: Path) -> Path:
    path = tmp_path / "initrd.cpio"
    modules = [Entry.program(module.name, module.read_bytes()) for module in guests.vterm_driver]
    path.write_bytes(guests.shell.read_bytes() + archive([*modules, Entry.link("bin/insmod", "busybox")]))
    return path


def start(run: Run, guests: Guests, initrd: Path, name: str, devices: str, *arguments: str) -> Console:
    machine = initrd.with_name(f"{name}.toml")
    machine.write_text(devices)
    files = ("--kernel", str(guests.kernel), "--initrd", str(initrd), "--machine", str(machine))
    console = run("--name", name, *files, *APPEND, *arguments)
    console.expect(PROMPT, BOOT_SECONDS)
    return console


def load_driver(console: Console) -> None:
    console.type(f"{DRIVER}; ls -l /dev/hvcs0 && echo 'driver' is here\n")
    console.expect("^driver is here")
    console.expect(PROMPT)


def test_a_guest_has_the_console_of_its_own_second_terminal(run: Run, guests: Guests, initrd: Path) -> None:
    own = f'{VTY}{VTY}server = "loop"\n[[device]]\nkind = "vty-server"\n'
    console = start(run, guests, initrd, "loop", own)
    load_driver(console)
    console.type(f"cat {SERVER}/partner_vtys; cat {SERVER}/partner_clcs\n")
    console.expect("loop-0x71000001")
    # Both raw before the other writes, so that neither echoes it.
    ready = "stty raw -echo; echo 'hvc1 is' raw >&2"
    console.type(f"({ready}; read -r line; echo \"vty: $line\" >&2; echo 'and back') <>/dev/hvc1 >&0 &\n")
    console.expect("hvc1 is raw")
    console.type("(stty raw -echo; echo 'there'; read -r line; echo \"server: $line\" >&2) <>/dev/hvcs0 >&0\n")
    console.expect("vty: there")
    console.expect("server: and back")
    console.type("poweroff\n")
    assert console.wait() == 0


def test_a_guest_has_the_console_of_another_vm(run: Run, guests: Guests, initrd: Path, short_path: Path) -> None:
    vio = Service("vio", short_path)
    try:
        connect = ("--connect", f"vio={vio.address}")
        client = start(run, guests, initrd, "client", f'{VTY}{VTY}server = "server"\n', *connect)
        client.type('(stty raw -echo; while read -r line; do sh -c "$line"; done) <>/dev/hvc1 >&0 &\n')
        client.expect(PROMPT)
        server = start(run, guests, initrd, "server", f'{VTY}{VTY}[[device]]\nkind = "vty-server"\n', *connect)
        load_driver(server)
        script = "echo \"it is $(expr 6 '*' 7)\"; cat /proc/device-tree/ibm,partition-name; echo"
        server.type(f"cat > /script <<'END'\n{script}\nEND\n")
        server.type(
            '(stty raw -echo; cat /script; while read -r line; do echo "from there: $line" >&2; done) <>/dev/hvcs0 >&0 &\n'
        )
        server.expect("from there: it is 42")
        server.expect("from there: client")
        client.type("poweroff\n")
        assert client.wait() == 0
        server.type("poweroff\n")
        assert server.wait() == 0
    finally:
        vio.end()


def test_linux_sees_sixteen_terminals_and_has_a_console_at_eight(run: Run, guests: Guests) -> None:
    """Its hvc driver has room for no more (HVC_ALLOC_TTY_ADAPTERS)."""
    console = run("--name", "many", "--kernel", str(guests.kernel), "--initrd", str(guests.shell), *APPEND, "--vty", "16")
    console.expect(PROMPT, BOOT_SECONDS)
    console.type("echo $(ls -d /proc/device-tree/vdevice/vty@* | wc -l) nodes and $(ls /dev/hvc* | wc -l) 'consoles'\n")
    console.expect("^16 nodes and 8 consoles")
    console.type('for n in $(seq 1 7); do echo "terminal $n" > /dev/hvc$n; done\n')
    for number in (1, 7):
        unit = hex(0x7100_0000 + number)
        found = console.splitvisor("console", "expect", "many", f"terminal {number}", "--unit", unit, "--timeout", "20")
        assert found.returncode == 0, found
    console.type("poweroff\n")
    assert console.wait() == 0
