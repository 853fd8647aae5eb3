# SPDX-License-Identifier: GPL-2.0-or-later
"""A hundred faults at random points while Debian checks itself: nothing is lost, nothing is doubled, nothing comes out of order.

The guest prints numbered lines; it writes its NVRAM, and reads back what it wrote; it takes devices and gives them back, with a
revision of its tree each time (tests/chaos/guest_trees.py). SPLITVISOR_CHAOS_FAULTS sets how many faults there are,
SPLITVISOR_CHAOS_SEED where and which, SPLITVISOR_CHAOS_SERVICES whose ("vio": devices alone, in which a guest meets them most).
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import re
import signal
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from splitvisor.guests.fetch import GuestError, fetch, resolve
from splitvisor.rpc import device_tree_pb2, device_tree_pb2_grpc, machine_pb2, machine_pb2_grpc
from tests.chaos import guest_trees
from tests.guests.harness import BOOT_SECONDS, Console
from tests.services import Service

FAULTS = int(os.environ.get("SPLITVISOR_CHAOS_FAULTS", "100"))
SEED = int(os.environ.get("SPLITVISOR_CHAOS_SEED", "5"))
DEADLINE_S = 30.0
"""More than ten times what a recovery may take."""
REVISIONS = 10_000
"""Kept; more than come about."""
NAMES = {"vio": "vio_service", "hcall": "hcall_service", "of-client": "of_client_service"}
LINKS = {short: NAMES[short] for short in os.environ.get("SPLITVISOR_CHAOS_SERVICES", "vio,hcall,of-client").split(",")}
NVRAM_OFFSET = 8192
"""Behind the partitions that Linux makes."""
WORKLOAD = f"""n=0; bad=0
while [ ! -e /tmp/enough ]; do
n=$((n+1)); echo "line $n of the workload, which counts"
if [ $((n % 8)) = 0 ]; then
printf 'record %08d' $n > /tmp/w
dd if=/tmp/w of=/dev/nvram bs=1 seek={NVRAM_OFFSET} conv=notrunc 2>/dev/null || echo "write failed"
dd if=/dev/nvram of=/tmp/r bs=1 skip={NVRAM_OFFSET} count=15 2>/dev/null
cmp -s /tmp/w /tmp/r || {{ bad=$((bad+1)); echo "nvram differs"; }}
fi
sleep 0.02
done; echo "the end: $n lines, $bad bad"
"""


@pytest.fixture
def services(short_path: Path) -> Iterator[dict[str, Service]]:
    """The four, whose state is on disk as far as it must outlive them."""
    hcall = Service("hcall", short_path, "--store", str(short_path / "trees.sqlite"), "--retention", str(REVISIONS))
    running = {
        "hcall": hcall,
        "vio": Service("vio", short_path, "--transcripts", str(short_path / "log"), "--device-tree", hcall.address),
        "of-client": Service("of-client", short_path, "--device-tree", hcall.address),
        "cpu": Service("cpu", short_path, "--ram-dir", str(short_path)),
    }
    yield running
    for service in running.values():
        service.end()


@pytest.fixture
def console(services: dict[str, Service], short_path: Path) -> Iterator[Console]:
    try:
        fetch(print)
    except GuestError as error:
        pytest.skip(f"no real guests: {error}")
    connect = ",".join(f"{name}={service.address}" for name, service in services.items())
    kernel, initrd = str(resolve("kernel", "debian")), str(resolve("initrd", "debian-slots"))
    nvram = ("--nvram", str(short_path / "nvram"))
    run = Console(("--connect", connect, "--kernel", kernel, "--initrd", initrd, "--append", "console=hvc0", *nvram), short_path)
    yield run
    run.close()


class Chaos:
    """Does things to the services, and takes the time until each is back."""

    def __init__(self, services: dict[str, Service]) -> None:
        self._services = services
        self._source = random.Random(SEED)
        self._channel = grpc.insecure_channel(services["cpu"].address)
        self._machine = machine_pb2_grpc.MachineServiceStub(self._channel)
        self.recoveries: defaultdict[str, list[float]] = defaultdict(list)
        """Seconds by what was done."""
        self.noticed: list[float] = []
        """Seconds from SIGSTOP until cpu_service saw that nobody is there."""
        self.revisions: list[tuple[int, str]] = []
        """Those that hcall_service had acknowledged."""

    def go(self, console: Console) -> None:
        """Do everything, in an order by the seed, and a little of the workload before each."""
        stops = [("stop", name) for name in LINKS] * max(1, FAULTS // 25)
        others = itertools.cycle(itertools.product(("kill", "restart"), LINKS))
        plan = [*stops, *itertools.islice(others, FAULTS - len(stops))]
        self._source.shuffle(plan)
        for fault, name in plan:
            console.expect(r"^line \d+ of", DEADLINE_S)
            time.sleep(self._source.random() * 0.05)  # Some point in the workload; not a wait for anything.
            began = time.monotonic()
            getattr(self, fault)(name)
            self.recoveries[f"{fault} {name}"].append(time.monotonic() - began)
            if name == "hcall":
                self.change_tree()
        self._channel.close()

    def kill(self, name: str) -> None:
        """As a crash."""
        before = self._link(name).reconnects
        self._services[name].kill()
        self._services[name].start()
        self._until(lambda: self._link(name).reconnects > before and self._link(name).attached, f"{name} is back")

    def restart(self, name: str) -> None:
        """As an operator."""
        before = self._link(name).reconnects
        self._services[name].end()
        self._services[name].start()
        self._until(lambda: self._link(name).reconnects > before and self._link(name).attached, f"{name} is back")

    def stop(self, name: str) -> None:
        """As a machine that hangs, until it is noticed."""
        process = self._services[name].process
        process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        try:
            self._until(lambda: not self._link(name).attached, f"it is noticed that {name} stands still")
            self.noticed.append(time.monotonic() - began)
        finally:
            process.send_signal(signal.SIGCONT)
        self._until(lambda: self._link(name).attached, f"{name} is back")

    def change_tree(self) -> None:
        """Store a revision like the head, and remember that it was acknowledged."""
        with grpc.insecure_channel(self._services["hcall"].address) as channel:
            trees = device_tree_pb2_grpc.DeviceTreeServiceStub(channel)
            while True:
                head = trees.GetTree(device_tree_pb2.GetTreeRequest(vm="guest"), timeout=DEADLINE_S)
                change = device_tree_pb2.PutTreeRequest(
                    vm="guest", origin=device_tree_pb2.TREE_ORIGIN_HOTPLUG, blob=head.blob, expected_revision=head.revision.number
                )
                try:
                    stored = trees.PutTree(change, timeout=DEADLINE_S)
                except grpc.RpcError as error:
                    if error.code() is not grpc.StatusCode.ABORTED:
                        raise
                    continue  # The guest has changed it meanwhile.
                self.revisions.append((stored.revision, hashlib.sha256(head.blob).hexdigest()))
                return

    def _link(self, name: str) -> machine_pb2.BackendStatus:
        status = self._machine.GetStatus(machine_pb2.GetStatusRequest(vm="guest"), timeout=DEADLINE_S)
        return next(known for known in status.backends if known.name == LINKS[name])

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"it did not happen: {what}"
            time.sleep(0.005)


def test_a_guest_that_checks_itself_outlives_a_hundred_faults(
    console: Console, services: dict[str, Service], short_path: Path, record_property: Callable[[str, object], None]
) -> None:
    console.expect("guest# ", BOOT_SECONDS)
    # The kernel's own lines would come between those that are counted. Nothing is typed until the shell has left its own line
    # editor for the terminal's: what is under way then counts as one line, and an end of file in it as text.
    console.type("stty -echo; PS1=; dmesg -n 1; echo qui''et\n")
    console.expect(r"^quiet\r?$")
    console.type(f"{guest_trees.LOAD_MODULES}; [ -e /dev/nvram ] || mknod /dev/nvram c 10 144\n")
    console.type("ls -l /dev/nvram\n")
    console.expect(r"/dev/nvram\r?$")
    guest_trees.plug_in(services["vio"].address, "guest")
    for name, program in (("lines", WORKLOAD), ("trees", guest_trees.WORKLOAD)):
        console.type(f"cat > /tmp/{name}\n{program}\4")
    console.type("sh /tmp/trees > /tmp/trees.said & sh /tmp/lines & read enough; touch /tmp/enough; wait\n")
    chaos = Chaos(services)
    chaos.go(console)
    console.type("enough\n")
    lines, bad = map(int, console.expect(r"^the end: (\d+) lines, (\d+) bad\r?$", DEADLINE_S).groups())
    assert bad == 0
    assert lines >= FAULTS
    console.type("cat /tmp/trees.said /tmp/taken; echo 'all'\n")
    account = console.expect(r"the trees: (\d+) taken and given, (\d+) bad\r\n((?:[0-9a-f]{64}\r\n)*)all\r?$", DEADLINE_S)
    taken, bad, digests = int(account[1]), int(account[2]), account[3].split()
    assert (bad, len(digests)) == (0, taken), console.text.rpartition("the trees:")[0][-2000:]  # What drmgr said.
    assert taken >= FAULTS // 10
    expected = "".join(f"line {number} of the workload, which counts\r\n" for number in range(1, lines + 1)).encode()
    [transcript] = (short_path / "log").glob("guest-*.log")
    for said in (console.text.encode(), transcript.read_bytes()):
        found = re.search(rb"^line 1 of.*^line %d of[^\n]*\n" % lines, said, re.MULTILINE | re.DOTALL)
        assert found is not None
        assert hashlib.sha256(found[0]).hexdigest() == hashlib.sha256(expected).hexdigest()
    with grpc.insecure_channel(services["hcall"].address) as channel:
        trees = device_tree_pb2_grpc.DeviceTreeServiceStub(channel)
        for number, digest in chaos.revisions:
            kept = trees.GetTree(device_tree_pb2.GetTreeRequest(vm="guest", revision=number), timeout=DEADLINE_S)
            assert hashlib.sha256(kept.blob).hexdigest() == digest
        assert list(guest_trees.stored_changes(trees, "guest")) == guest_trees.expected_changes(digests)
    written = (short_path / "nvram").read_bytes()[NVRAM_OFFSET : NVRAM_OFFSET + 15]
    assert written == b"record %08d" % (lines // 8 * 8)
    console.type("busybox poweroff -f\n")
    assert console.wait(BOOT_SECONDS) == 0
    report = {name: f"median {statistics.median(times):.2f} s, longest {max(times):.2f} s of {len(times)}"
              for name, times in sorted(chaos.recoveries.items())}  # fmt: skip
    report["the guest's own revisions"] = str(2 * taken)
    report["noticed"] = ", ".join(f"{seconds:.2f} s" for seconds in chaos.noticed)
    for name, text in report.items():
        record_property(name, text)
        print(f"{name}: {text}")
