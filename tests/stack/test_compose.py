# SPDX-License-Identifier: GPL-2.0-or-later
"""docker-compose.yml on a real engine: Debian boots in the stack, answers on its terminal and outlives the services."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from http import HTTPStatus
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

import splitvisor
from splitvisor.guests.fetch import GuestError, fetch, resolve
from tests.guests.harness import ROOT, STEP_SECONDS
from tests.stack.compose import SERVICES, Compose, free_port, wait_for
from tests.stack.conftest import NewCompose
from tests.stack.engine import BUILD_SECONDS, Engine

pytestmark = pytest.mark.timeout(2400)  # The first run makes a base image and installs what the lock file lists.

BACK_ENDS = {"vio": "vio_service", "hcall": "hcall_service", "of-client": "of_client_service"}
LINES = 100
BOOT_SECONDS = 360.0
"""For the stack to come up, and for Debian in it. It bounds a hang."""


@pytest.fixture(scope="module")
def stack(new_compose: NewCompose) -> Iterator[Compose]:
    """The stack with Debian in it."""
    try:
        fetch(print)
    except GuestError as error:
        pytest.skip(f"no real guests: {error}")
    kernel, initrd = str(resolve("kernel", "debian")), str(resolve("initrd", "debian"))
    # Its kernel keeps quiet: a remark about a slow host would stand in the middle of a line.
    append = "console=hvc0 loglevel=1"
    compose = new_compose("sv", GUEST_KERNEL=kernel, GUEST_INITRD=initrd, GUEST_APPEND=append, SPLITVISOR_PORT=str(free_port()))
    try:
        compose.run("up", "-d", seconds=BOOT_SECONDS)
        yield compose
    finally:
        compose.down()


INSTALLED = """
import base64, hashlib, importlib.metadata as metadata, json
own = metadata.distribution("splitvisor")
changed = []
for file in own.files:
    if file.hash is not None:
        digest = hashlib.new(file.hash.mode, file.locate().read_bytes()).digest()
        if base64.urlsafe_b64encode(digest).decode().rstrip("=") != file.hash.value:
            changed.append(str(file))
print(json.dumps({
    "versions": {each.name.lower().replace("_", "-"): each.version for each in metadata.distributions()},
    "wheel": own.read_text("WHEEL"),
    "changed": changed,
}))
"""
"""What the image has installed, from inside; and whether the wheel's files are still those that its record lists."""


def attached(stack: Compose, backend: str) -> bool:
    """True: the guest has a back end again that was lost."""
    found = {each["name"]: each for each in stack.status().get("backends", ())}.get(backend)
    return found is not None and found["attached"] and found["reconnects"] > 0


def test_the_containers_may_do_nothing_but_serve(stack: Compose) -> None:
    for service in (*SERVICES, "machine"):
        container = stack.container(service)
        host = container["HostConfig"]
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"]
        assert not host["Privileged"]
        assert "no-new-privileges:true" in host["SecurityOpt"]
        assert container["Config"]["User"] == "10001:10001"
        networks = container["NetworkSettings"]["Networks"]
        assert list(networks) == (["none"] if service == "machine" else ["sv_metrics"])
    assert stack.run("exec", "-T", "cpu", "stat", "-c", "%a %U", "/run/splitvisor").strip() == "700 splitvisor"
    assert "Read-only file system" in stack.run("exec", "-T", "cpu", "sh", "-c", "touch /opt/x 2>&1 || true")


def test_the_image_has_the_wheel_and_what_the_lock_lists_and_nothing_else(stack: Compose) -> None:
    found = json.loads(stack.run("exec", "-T", "cpu", "python", "-P", "-c", INSTALLED))
    locked = dict(re.findall(r"^([\w.-]+)==([^ ;\\]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert found["versions"] == {**locked, "splitvisor": splitvisor.__version__}
    assert "Tag: py3-none-manylinux_2_17_x86_64" in found["wheel"]
    assert found["changed"] == []
    [place] = stack.run("exec", "-T", "cpu", "sh", "-c", "find / -xdev -name gateway_service 2>/dev/null || true").split()
    assert place.endswith("/site-packages/gateway_service")


def test_the_gateway_shows_the_vm_to_who_has_the_token(stack: Compose) -> None:
    def printed() -> re.Match[str] | None:
        return re.search(r"(http://127\.0\.0\.1:\d+)/\?token=(\S+)", stack.run("logs", "--no-color", "gateway"))

    wait_for(lambda: printed() is not None, "the gateway prints its address")
    found = printed()
    assert found is not None
    with pytest.raises(HTTPError) as refused:
        urlopen(f"{found[1]}/api/vms", timeout=STEP_SECONDS)
    assert refused.value.code == HTTPStatus.UNAUTHORIZED
    refused.value.close()
    request = Request(f"{found[1]}/api/vms", headers={"Authorization": f"Bearer {found[2]}"})
    with urlopen(request, timeout=STEP_SECONDS) as answer:
        assert b"guest" in answer.read()


def test_metrics_are_to_be_had_where_prometheus_would_be(stack: Compose) -> None:
    read = "from urllib.request import urlopen; print(urlopen('http://cpu:9464/metrics', timeout=10).read().decode())"
    assert 'splitvisor_machine_uptime_seconds{vm="guest"}' in stack.run("exec", "-T", "vio", "python", "-c", read)


def test_linux_outlives_every_back_end(stack: Compose) -> None:
    with closing(stack.terminal()) as terminal:
        terminal.expect("guest# ", BOOT_SECONDS)
        terminal.type("echo heard $((6 * 7))\n")
        terminal.expect(r"^heard 42\r?$")
        terminal.type(f"for i in $(seq 1 {LINES}); do echo line $i; sleep 0.2; done; echo all said\n")
        terminal.expect(r"^line 10\r?$")
        for service, backend in BACK_ENDS.items():
            stack.kill(service)
            wait_for(partial(attached, stack, backend), f"{backend} is attached again")
        stack.kill("machine")  # Who started the VM is not needed for it to go on.
        terminal.expect(r"^all said\r?$", BOOT_SECONDS)
        terminal.type("echo still $((5 * 5))\n")
        terminal.expect(r"^still 25\r?$")
        terminal.leave()
    # Not what the terminal showed: that has remarks of its own about the lost connection.
    transcript = stack.run("exec", "-T", "vio", "splitvisor", "console", "log", "guest")
    said = re.findall(r"^line (\d+)\s*$", transcript, re.MULTILINE)
    assert said == [str(number) for number in range(1, LINES + 1)], transcript[-4000:]
    status = stack.status()
    assert (status["state"], status["resets"]) == ("running", 1)
    for backend in status["backends"]:
        assert backend["attached"], backend
        assert backend["ram_mapped"], backend
        assert backend["reconnects"] >= 1, backend


def test_a_second_vm_shares_the_back_ends(stack: Compose) -> None:
    stack.run("--profile", "second-vm", "up", "-d", seconds=BOOT_SECONDS)
    wait_for(lambda: stack.status("guest2", "cpu2").get("state") == "running", "the second VM runs")
    with closing(stack.terminal("guest2")) as terminal:
        terminal.expect("guest# ", BOOT_SECONDS)
        terminal.type("echo second $((3 * 3))\n")
        terminal.expect(r"^second 9\r?$")
        terminal.leave()
    assert stack.status()["resets"] == 1
    stack.run("--profile", "second-vm", "rm", "--stop", "--force", "machine2", "cpu2")


def test_a_vm_whose_cpu_service_dies_starts_anew(stack: Compose) -> None:
    stack.kill("cpu")
    wait_for(lambda: stack.status().get("state") == "running", "the VM runs again")
    assert stack.container("machine")["RestartCount"] >= 1
    with closing(stack.terminal()) as terminal:
        terminal.expect("guest# ", BOOT_SECONDS)
        # What the killed process left of RAM is gone: the volume has room for two of these.
        [ram] = stack.run("exec", "-T", "cpu", "sh", "-c", "ls /run/splitvisor/*.ram").split()
        assert ram.startswith("/run/splitvisor/guest-")
        terminal.type("poweroff\n")
        wait_for(lambda: not stack.container("machine")["State"]["Running"], "the machine's container ends")
    assert stack.container("machine")["State"]["ExitCode"] == 0
    assert stack.run("logs", "--no-color", "machine").splitlines()[-1].endswith("| guest: powered off: RTAS power-off")


def test_the_services_end_when_they_are_asked_to(stack: Compose) -> None:
    stack.run("stop", "--timeout", "20")
    assert {service: stack.container(service)["State"]["ExitCode"] for service in SERVICES} == dict.fromkeys(SERVICES, 0)
    running = stack.run("ps", "--services", "--filter", "status=running").split()
    assert running == []


def test_a_late_database_is_waited_for_and_its_trees_outlive_the_services(engine: Engine, new_compose: NewCompose) -> None:
    """The profile postgres, with the demo guest and a stand-in for the official image, which takes each step when told to."""
    stand_in = str(Path(__file__).parent / "postgres")
    engine.docker("build", "--network=host", "--tag", "postgres:17", stand_in, seconds=BUILD_SECONDS)
    store = "postgresql://splitvisor@/trees?host=/run/postgresql"
    stack = new_compose("pg", SPLITVISOR_STORE=store, SPLITVISOR_PORT=str(free_port()))

    def logged(text: str) -> bool:
        return text in stack.run("logs", "--no-color", "hcall", check=False)

    def history() -> str:
        return stack.run("exec", "-T", "cpu", "splitvisor", "dt", "history", "guest", "--json", check=False)

    try:
        with ThreadPoolExecutor() as background:
            arguments = ("--profile", "postgres", "up", "-d", "machine", "postgres")
            up = background.submit(stack.run, *arguments, seconds=BOOT_SECONDS)
            for step, reason in (("start", "No such file or directory"), ("create", "does not exist")):
                wait_for(partial(logged, reason), f"hcall waits: {reason}", BOOT_SECONDS)
                hcall = stack.container("hcall")
                assert (hcall["State"]["Health"]["Status"], hcall["RestartCount"]) == ("starting", 0)
                stack.run("exec", "-T", "postgres", "touch", f"/tmp/{step}")
            up.result(BOOT_SECONDS)
        assert logged("the database is there")
        assert stack.container("hcall")["RestartCount"] == 0
        wait_for(lambda: stack.status().get("state") == "running", "the VM runs")
        wait_for(lambda: "seed" in history(), "the tree that the machine started with is stored")
        before = history()
        for service in ("postgres", "hcall"):
            stack.kill(service)
        wait_for(lambda: history() == before, "the store has what it had")
        assert stack.status()["resets"] == 1
    finally:
        stack.down()
