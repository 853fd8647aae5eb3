# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole runs that are recorded, and replayed against fresh services: none of them may answer otherwise than it did.

The recording of Debian's boot is a regression test for every service: its kernel is not in the repository, so it is made here.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from splitvisor.guests.commands import Commands
from splitvisor.guests.fetch import MARKER
from splitvisor.recording.file import RecordingReader, RecordingWriter
from splitvisor.recording.text import terminal_bytes
from splitvisor.rpc import recording_pb2 as rpb
from splitvisor.run.exit_status import ExitStatus
from tests.component.trap_client import wait_until
from tests.guests.conftest import IO_PROMPT, Run
from tests.guests.harness import BOOT_SECONDS, ROOT, STEP_SECONDS, Console, Guests
from tests.services import Service
from tests.unit.recordings import read

MIB = 1 << 20
BACK_ENDS = ("vio_service", "hcall_service", "of_client_service")


def splitvisor(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "splitvisor", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=BOOT_SECONDS, check=False)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="sv-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def demo(place: Path) -> Path:
    """The demo guest, typed at and rebooted, with a second terminal and NVRAM in a file."""
    runtime = place / "demo"
    runtime.mkdir()
    file = place / "demo.recording"
    console = Console(["--record", str(file), "--vty", "2", "--nvram", str(place / "nvram")], runtime)
    console.expect("> ")
    console.type("ls /chosen\n")
    console.expect("bootargs")
    console.type("reboot\n")
    console.expect("Type help")
    console.expect("> ")
    console.type("time\noff\n")
    assert console.wait() == 0
    console.close()
    return file


@pytest.fixture(scope="module")
def debian(place: Path, guests: Guests) -> Path:
    """Debian's kernel up to a shell, a command, and power-off; two vCPUs."""
    runtime = place / "debian"
    runtime.mkdir()
    file = place / "debian.recording"
    console = Console(
        ["--record", str(file), "--kernel", str(guests.kernel), "--initrd", str(guests.shell), "--smp", "2",
         "--append", "console=hvc0 panic=-1"], runtime,
    )  # fmt: skip
    console.expect(MARKER, BOOT_SECONDS)
    console.expect("guest# ")
    console.type("expr 6 '*' 7; uname -m\n")
    console.expect(r"^ppc64le\r?$")
    console.type("poweroff\n")
    assert console.wait() == 0
    console.close()
    return file


@pytest.fixture(scope="module")
def disk(place: Path, guests: Guests) -> Path:
    """Debian with a network, which reads and writes a disk."""
    runtime = place / "disk"
    runtime.mkdir()
    file, image = place / "disk.recording", place / "disk.img"
    image.write_bytes(b"on the disk:".ljust(MIB, b"\0"))
    files = ("--kernel", str(guests.kernel), "--initrd", str(guests.io), "--append", "console=hvc0 panic=-1")
    console = Console(["--record", str(file), *files, "--disk", str(image), "--net", f"switch=record{os.getpid()}"], runtime)
    console.expect(IO_PROMPT, BOOT_SECONDS)
    guest = Commands(console)
    guest.wait_for("test -b /dev/sda")
    assert guest.ok("dd if=/dev/sda bs=512 count=1 iflag=direct 2>/dev/null | head -c 11") == "on the disk"
    guest.ok("ip link set eth0 up && dd if=/dev/zero of=/dev/sda bs=4k count=4 seek=4 oflag=direct")
    console.type("poweroff -f\n")
    assert console.wait() == 0
    console.close()
    image.unlink()  # Nobody needs it to read the recording.
    return file


@pytest.mark.parametrize("service", ["hcall_service", "of_client_service"])
def test_the_other_services_of_a_machine_with_a_disk_answer_as_they_did(disk: Path, service: str) -> None:
    done = splitvisor("replay", str(disk), "--against", service)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "no differences" in done.stdout


@pytest.mark.parametrize("how", [("--against", "vio_service"), ("--against", "vio@unix:/nowhere"), ("--as", "vio")])
def test_the_service_that_has_the_disk_is_not_replayed_and_opens_none(disk: Path, place: Path, how: tuple[str, str]) -> None:
    done = splitvisor("replay", str(disk), *how)
    assert (done.returncode, done.stdout) == (ExitStatus.USAGE, "")
    assert done.stderr == (
        f"splitvisor replay: vio_service of {disk} has l-lan@71000002, v-scsi@71000003: what a device with a DMA window does by "
        "itself cannot be replayed; replay hcall_service or of_client_service\n"
    )
    assert not (place / "disk.img").exists()


def test_what_a_disk_and_its_guest_said_to_each_other_is_shown(disk: Path) -> None:
    shown = splitvisor("record", "show", str(disk), "--link", "vio_service").stdout
    assert re.search(r"H_REG_CRQ\(0x71000003, 0x[0-9a-f]+, 0x10000\) -> H_SUCCESS", shown)
    assert re.search(r"puts into the queue of 0x71000003 from 0 on: c0020{28}\n", shown)
    assert re.search(r"writes 0x[0-9a-f]+\+512 6f6e20746865206469736b3a0{8}\.\.\. by DMA of 0x71000003\n", shown)
    assert re.search(r"reads 0x[0-9a-f]+\+\d+(, 0x[0-9a-f]+\+\d+)* by DMA of 0x71000003\n", shown)


@pytest.mark.parametrize("service", BACK_ENDS)
def test_a_fresh_service_answers_the_demo_guest_as_it_did(demo: Path, service: str) -> None:
    done = splitvisor("replay", str(demo), "--against", service)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "no differences" in done.stdout


@pytest.mark.parametrize("service", BACK_ENDS)
def test_a_fresh_service_answers_debian_as_it_did(debian: Path, service: str) -> None:
    done = splitvisor("replay", str(debian), "--against", service)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "no differences" in done.stdout


def test_everything_that_debian_wrote_and_read_is_in_its_recording(debian: Path) -> None:
    stats = json.loads(splitvisor("record", "stats", "--json", str(debian)).stdout)
    calls = {call["name"]: call["count"] for call in stats["calls"]}
    assert calls["H_PUT_TERM_CHAR"] > 1000
    assert calls["H_OF_CLIENT"] > 500
    assert stats["terminal_bytes"]["read"] == len("expr 6 '*' 7; uname -m\npoweroff\n")
    assert {each["name"] for each in stats["local"]} >= {"H_ENTER", "H_REMOVE"}
    assert stats["waits"] == 0


def _changed(demo: Path, path: Path, change: str) -> tuple[Path, str]:
    """A recording with one change, and the service that it is about."""
    with demo.open("rb") as file:
        records = list(RecordingReader(file, "demo"))
    backends = list(records[0].start.backends)
    record, link = next(found for each in records if (found := _change(each, change)) is not None)
    writer = RecordingWriter(path)
    for each in records:
        writer.append(each.SerializeToString())
    writer.close()
    assert record in records
    return path, backends[link - 1]


def _change(record: rpb.Record, change: str) -> tuple[rpb.Record, int] | None:
    """Change a record if it is one of the kind; what a service did before its code was changed."""
    reply = record.response.reply
    match change:
        case "reply" if len(reply.outputs) == 3:
            reply.outputs[2] ^= 1
        case "memory" if reply.writes and len(reply.writes[0].data) == 4:
            reply.writes[0].data = b"\xde\xad\xbe\xef"
        case "effect" if reply.effects and reply.effects[0].HasField("invoke"):
            del reply.effects[0]
        case "offer" if record.response.HasField("offer") and record.response.offer.nodes:
            record.response.offer.nodes[0].properties[0].value = b"other"
        case _:
            return None
    return record, record.link


@pytest.mark.parametrize(
    ("change", "what"),
    [("reply", ": reply"), ("memory", ": memory write"), ("effect", ": reply"), ("offer", "offer: nodes")],
)
def test_a_difference_is_found_and_named(demo: Path, tmp_path: Path, change: str, what: str) -> None:
    changed, service = _changed(demo, tmp_path / "changed", change)
    done = splitvisor("replay", str(changed), "--against", service)
    assert done.returncode == 1
    assert what in done.stdout
    assert f"{service}: " in done.stdout
    recorded, now = (next(line for line in done.stdout.splitlines() if line.startswith(start)) for start in ("  rec", "  now"))
    assert recorded.split(maxsplit=1)[1] != now.split(maxsplit=1)[1]


def test_a_service_that_runs_is_replayed_against_without_harm_to_its_machine(run: Run, demo: Path) -> None:
    console = run()
    console.expect("> ")
    done = splitvisor("replay", str(demo), "--against", f"vio_service@{console.service('vio')}")
    assert done.returncode == 0, done.stdout + done.stderr
    console.type("echo still here\n")
    console.expect(r"^still here\r?$")
    console.type("off\n")
    assert console.wait() == 0


def test_nobody_at_the_address_is_one_line(demo: Path, place: Path) -> None:
    done = splitvisor("replay", str(demo), "--against", f"vio@unix:{place}/nobody.sock")
    assert done.returncode == ExitStatus.SERVICE_FAILED
    assert done.stderr.count("\n") == 1
    assert "nobody.sock" in done.stderr


class StandIn:
    """`splitvisor replay --as` in a process of its own."""

    def __init__(self, recording: Path, service: str, socket: Path) -> None:
        self.address = f"unix:{socket}"
        command = [sys.executable, "-m", "splitvisor", "replay", str(recording), "--as", service, "--listen", self.address]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        assert self.address in self.process.stderr.readline()
        # It says so before it listens; `splitvisor run` waits for it.

    def close(self) -> None:
        """End it if it has not."""
        if self.process.poll() is None:
            self.end()

    def end(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=STEP_SECONDS)
        return self.process.returncode, errors


Stand = Callable[[Path, str], StandIn]


@pytest.fixture
def stand(short_path: Path) -> Iterator[Stand]:
    """Have a recording stand in for a service; it is ended with the test."""
    started: list[StandIn] = []

    def start(recording: Path, service: str) -> StandIn:
        started.append(StandIn(recording, service, short_path / "stand-in.sock"))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.mark.parametrize(("service", "flag"), [("vio_service", "vio"), ("hcall_service", "hcall")])
def test_a_recording_stands_in_for_a_service(run: Run, stand: Stand, demo: Path, place: Path, service: str, flag: str) -> None:
    """What was typed comes from the recording when that is vio_service's."""
    stand_in = stand(demo, service)
    console = run("--connect", f"{flag}={stand_in.address}", "--vty", "2", "--nvram", str(place / "nvram"))
    if flag != "vio":
        console.expect("> ")
        console.type("ls /chosen\nreboot\n")
        console.expect("Type help")
        console.type("time\noff\n")
    console.expect("Powering off")
    assert console.wait() == 0
    status, errors = stand_in.end()
    assert (status, "the guest stayed in the recording" in errors) == (0, True), errors


def test_a_guest_that_leaves_the_recording_is_told_of(run: Run, stand: Stand, demo: Path) -> None:
    stand_in = stand(demo, "of-client")
    console = run("--connect", f"of-client={stand_in.address}", "--vty", "2")
    console.expect("> ")
    console.type("tree\noff\n")
    console.wait()
    status, errors = stand_in.end()
    assert status == 1
    assert "the guest leaves the recording: it did not make this call: vcpu 0 H_OF_CLIENT(" in errors


def test_another_machine_is_refused_with_the_reason(run: Run, stand: Stand, demo: Path) -> None:
    console = run("--connect", f"vio={stand(demo, 'vio').address}", "--memory", "1G")
    assert console.wait() == ExitStatus.USAGE
    assert console.process.stderr is not None
    assert b"the recording is of a machine with 1 vCPUs and 512 MiB" in console.process.stderr.read()


def test_cpu_service_killed_leaves_what_was_recorded_until_then(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "killed.recording"
    console = run("--record", str(file))
    console.expect("> ")
    console.type("echo recorded\n")
    console.expect(r"^recorded\r?$")
    _wait_for_text(file, b"recorded")
    os.kill(console.pids()["cpu"], signal.SIGKILL)
    console.wait()
    done = splitvisor("record", "stats", str(file))
    assert done.returncode == 0
    assert "is cut off" in done.stderr or "has no end: cpu_service was killed" in done.stderr
    replayed = splitvisor("replay", str(file), "--against", "of-client")
    assert replayed.returncode == 0, replayed.stdout


def test_a_back_end_that_was_killed_meanwhile_is_replayed_as_one(run: Run, services: dict[str, Service], tmp_path: Path) -> None:
    file = tmp_path / "killed.recording"
    connect = ",".join(f"{name}={service.address}" for name, service in services.items())
    console = run("--record", str(file), "--connect", connect)
    console.expect("> ")
    console.type("echo before\n")
    console.expect(r"^before\r?$")
    services["vio"].kill()
    services["vio"].start()
    console.type("echo after\noff\n")
    console.expect(r"^after\r?$")
    assert console.wait() == 0
    connections = json.loads(splitvisor("record", "stats", "--json", str(file)).stdout)["connections"]
    assert connections["vio_service"] > 1
    for service in BACK_ENDS:
        done = splitvisor("replay", str(file), "--against", service)
        assert done.returncode == 0, done.stdout


def _wait_for_text(file: Path, text: bytes) -> None:
    """Wait until a recording under way has a text that the guest wrote in one block."""

    def there() -> bool:
        traps = [trap for record in read(file)[0] for trap in record.request.posted.traps]
        return text in b"".join(terminal_bytes(trap) for trap in traps)

    wait_until(there, "the recorder writes")


def test_a_file_that_is_no_recording_is_not_replaced(run: Run, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"something")
    console = run("--record", str(precious))
    assert console.wait() == 2
    assert precious.read_bytes() == b"something"


@pytest.mark.parametrize(
    ("arguments", "end", "status", "first"),
    [
        ((), lambda console: console.type("off\n"), 4, ""),
        (("--exit-on", "bootargs"), lambda console: console.type("ls /chosen\n"), 4, ""),
        ((), lambda console: console.process.send_signal(signal.SIGINT), 130, ""),
        (("--exit-on", "never"), lambda console: console.type("off\n"), 1, "the guest powered off without writing 'never'"),
    ],
)
def test_a_run_says_that_its_recording_ends_before_it(
    arguments: tuple[str, ...], end: Callable[[Console], None], status: int, first: str, run: Run, tmp_path: Path
) -> None:
    """The limit of a file's size stands for a full disk."""
    file = tmp_path / "r"
    console = run("--record", str(file), *arguments)
    console.expect("Type help for the commands")
    cpu = console.pids()["cpu"]
    resource.prlimit(cpu, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    end(console)
    assert console.wait() == status
    assert console.process.stderr is not None
    said = console.process.stderr.read().decode().splitlines()
    kept, _ = read(file)
    line = f"the recording {file} ends at {kept[-1].time_ns / 1e9:.3f} s: File too large"
    assert said == [f"splitvisor run: {each}" for each in (first, line) if each]
    report = console.report()
    assert (report["status"], report["message"]) == (status, "\n".join(filter(None, (first, line))))


def test_the_status_of_a_vm_shows_that_its_recording_has_ended(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    console = run("--record", str(tmp_path / "r"))
    console.expect("Type help for the commands")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(console.runtime))
    assert "recording" not in splitvisor("vm", "status", "guest").stdout
    assert json.loads(splitvisor("vm", "status", "guest", "--json").stdout)["recording_failure"] == ""
    resource.prlimit(console.pids()["cpu"], resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    console.type("ls /chosen\n")
    failure = re.escape(f"the recording {tmp_path}/r ends at ") + r"\d+\.\d{3} s: File too large"
    wait_until(lambda: bool(re.search(f"^{failure}$", splitvisor("vm", "status", "guest").stdout, re.M)), "it is shown")
    assert re.fullmatch(failure, json.loads(splitvisor("vm", "status", "guest", "--json").stdout)["recording_failure"])
    console.type("off\n")
    assert console.wait() == 4


def test_a_restored_machine_leaves_the_recording_as_it_is(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording, snapshot = tmp_path / "r", tmp_path / "s"
    console = run("--record", str(recording))
    console.expect("^> ")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(console.runtime))
    saved = splitvisor("vm", "save", "guest", str(snapshot), "--stop")
    assert (saved.returncode, saved.stderr, console.wait()) == (0, "", 0)
    before = recording.read_bytes()
    restored = run("--from", str(snapshot))
    restored.type("off\n")
    assert restored.wait() == 0
    assert recording.read_bytes() == before
