# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo guest, and how a run ends that has no kernel to wait for."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from pathlib import Path

import pytest

from splitvisor.run.machine import CONTROL_SECONDS
from tests.guests.conftest import Run
from tests.guests.harness import BOOT_SECONDS

PROMPT = "> "


def test_the_demo_guest_shows_its_tree_and_powers_off(run: Run) -> None:
    console = run()
    console.expect("Splitvisor's demo guest")
    console.expect(PROMPT)
    console.type("ls\r")
    listing = console.expect(r"ls\r?$(?s:.*?)^> ").group()
    assert {"cpus", "memory@0", "vdevice", "chosen"} <= set(listing.split())
    console.type("off\r")
    assert console.wait() == 0


def test_a_terminal_is_raw_while_the_guest_has_it_and_escape_q_leaves(run: Run) -> None:
    console = run(terminal=True)
    console.expect("Type help for the commands")
    console.expect(PROMPT)
    console.type("help\r")
    console.expect("off")
    console.type("\x1dq")
    assert console.wait() == 0


@pytest.mark.parametrize(("keys", "status"), [("\x03", 130), ("\x1dq", 0), ("", 130)])
def test_a_run_that_waits_for_a_back_end_ends_at_once_when_it_is_left(run: Run, keys: str, status: int) -> None:
    """^C, ^] q, and SIGINT: a back end takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        console = run("--backend", f"silent=127.0.0.1:{silent.getsockname()[1]}", terminal=True)
        console.expect("attaching back ends", BOOT_SECONDS)
        began = time.monotonic()
        if keys:
            console.type(keys)
        else:
            console.process.send_signal(signal.SIGINT)
        assert console.wait() == status
        assert time.monotonic() - began < CONTROL_SECONDS, "it did not wait for the machine to be stopped"
        assert "Traceback" not in console.text


@pytest.mark.parametrize("service", ["vio", "hcall", "of-client", "cpu"])
def test_a_killed_service_is_named_and_status_4(run: Run, service: str) -> None:
    console = run()
    console.expect(PROMPT)
    os.kill(console.pids()[service], signal.SIGKILL)
    assert console.wait() == 4
    assert console.process.stderr is not None
    errors = console.process.stderr.read().decode()
    assert f"{service.replace('-', '_')}_service was killed by SIGKILL" in errors


@pytest.mark.parametrize(("flags", "status"), [((), 0), (("--exit-on", "never said"), 1)])
def test_a_run_whose_output_nobody_reads_ends(run: Run, flags: tuple[str, ...], status: int) -> None:
    """As `splitvisor run | head`: the guest can be neither seen nor reached."""
    console = run(*flags)
    console.expect(PROMPT)
    console.close_output()
    assert console.wait() == status


def test_a_timeout_is_status_124(run: Run) -> None:
    console = run("--timeout", "3")
    assert console.wait() == 124


def test_sigterm_ends_a_run_and_its_services(run: Run) -> None:
    console = run()
    console.expect("demo guest")
    pids = console.pids()
    console.process.send_signal(signal.SIGTERM)
    assert console.wait() == 143
    for pid in pids.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_services_end_when_the_launcher_is_killed(run: Run) -> None:
    console = run("--name", "orphaned")
    console.expect("demo guest")
    descriptors = [os.pidfd_open(pid) for pid in console.pids().values()]
    console.process.kill()
    console.process.wait()
    for descriptor in descriptors:
        assert readable(descriptor)
        os.close(descriptor)
    # The next run clears what the killed one left; the fixture checks it.
    again = run("--timeout", "2")
    assert again.wait() == 124


def readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 20)[0])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--disk", "{}/none"), "{}/none: No such file or directory; correct the name, or make it: truncate -s 4G {}/none"),
        (("--disk", "{}"), "{}: is neither a regular file nor a block device but a directory"),
        (
            ("--cdrom", "{}/empty"),
            "{}/empty: it is empty; give the image of a CD, or the word empty for a drive with nothing in it",
        ),
        (
            ("--disk", "{}/disk", "--disk", "{}/disk,serial=D2"),
            "{}/disk: disk0 and disk1 both have it; give each its own image, or readonly to both",
        ),
        (
            ("--net", "tap=none0"),
            "l-lan at 0x71000002: tap: there is no network device none0; make it: ip tuntap add dev none0 mode tap user USER",
        ),
        (("--net", "user,tftp={}/disk"), "l-lan at 0x71000002: user: tftp: {}/disk is not a directory; give one, or make it"),
    ],
)
def test_a_device_that_cannot_be_is_one_line_and_status_2(run: Run, tmp_path: Path, options: tuple[str, ...], line: str) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    console = run(*(option.replace("{}", str(tmp_path)) for option in options))
    assert console.wait(BOOT_SECONDS) == 2
    assert console.process.stderr is not None
    assert console.process.stderr.read().decode() == f"splitvisor run: {line.replace('{}', str(tmp_path))}\n"


def test_a_kernel_that_is_none_is_status_2(run: Run) -> None:
    console = run("--kernel", __file__)
    assert console.wait() == 2


@pytest.fixture
def without_terminals(tmp_path: Path) -> Path:
    path = tmp_path / "mute.toml"
    path.write_text('name = "mute"\nmemory = "256M"\n[[device]]\nkind = "nvram"\n')
    return path


@pytest.mark.parametrize(("keys", "status"), [("x\x1dsy\x1dq", 0), ("\x03", 130)])
def test_a_machine_without_a_console_runs_until_it_is_left(run: Run, without_terminals: Path, keys: str, status: int) -> None:
    console = run("--machine", str(without_terminals), terminal=True)
    console.expect(r"VM mute has no console; waiting for its end; \^\] q leaves")
    console.type(keys)
    assert console.wait() == status


def test_a_machine_without_a_console_ends_by_itself_and_in_time(run: Run, without_terminals: Path) -> None:
    console = run("--machine", str(without_terminals), "--timeout", "4")
    assert console.wait() == 124
    console = run("--machine", str(without_terminals), "--exit-on", "never said")
    assert console.process.stderr is not None
    while b"has no console" not in (line := console.process.stderr.readline()):
        assert line
    attached = console.splitvisor("console", "attach", "mute")
    assert (attached.returncode, "VM 'mute' has no console" in attached.stderr) == (1, True)
    assert console.splitvisor("vm", "stop", "mute").returncode == 0
    assert console.wait(4.0) == 1, "at once, and without the text"
