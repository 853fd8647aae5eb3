# SPDX-License-Identifier: GPL-2.0-or-later
"""The wheel in fresh environments, without the checkout: machines, guests, the web page, and devices of others."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import HTTPCookieProcessor, build_opener

import pytest

from splitvisor.guests.fetch import GuestError, fetch
from splitvisor.testing import BackendProgram, RunningMachine
from splitvisor.testing.plugin import StartMachine
from tests.guests.harness import ROOT, STEP_SECONDS
from tests.packaging.environments import VERSIONS, Environment, interpreter
from tests.packaging.uses import boots_linux, runs_the_demo_guest, writes_a_device_whose_tests_pass

pytestmark = pytest.mark.timeout(900)  # pip fetches what its cache does not have
pytest_plugins = ["splitvisor.testing"]

UNIT, H_ECHO_SEND, H_ECHO_RECEIVE = 0x30000000, 0xF120, 0xF124
BASE = {
    "splitvisor", "googleapis-common-protos", "grpcio", "grpcio-health-checking", "grpcio-reflection", "grpcio-status",
    "protobuf", "structlog", "typing-extensions",
}  # fmt: skip


def test_it_is_the_wheel_that_runs(installed: Environment) -> None:
    code = "import cpu_service, splitvisor; print(splitvisor.__file__, cpu_service.__file__)"
    for path in installed.run("python", "-c", code).stdout.split():
        assert "/site-packages/" in path
        assert not Path(path).is_relative_to(ROOT)


def test_the_demo_guest_runs(installed: Environment) -> None:
    runs_the_demo_guest(installed)


def test_a_new_device_passes_its_tests(installed: Environment) -> None:
    writes_a_device_whose_tests_pass(installed)


def test_it_finds_real_guests_and_boots_one(installed: Environment) -> None:
    try:
        fetch(print)
    except GuestError as error:
        pytest.skip(f"no real guests: {error}")
    assert installed.run("splitvisor", "guests", "--help").returncode == 0
    listed = installed.run("splitvisor", "guests")
    assert listed.returncode == 0, listed.stderr
    assert re.search(r"^kernel +debian ", listed.stdout, re.MULTILINE)
    boots_linux(installed, "debian", "debian")


def test_the_gateway_serves_its_page_with_the_terminal(installed: Environment) -> None:
    with installed.running("splitvisor", "service", "gateway", "--listen-http", "127.0.0.1:0") as gateway:
        assert gateway.stdout is not None
        url = gateway.stdout.readline().strip()
        origin = f"http://{urlsplit(url).netloc}"
        browser = build_opener(HTTPCookieProcessor())
        with browser.open(url, timeout=STEP_SECONDS) as page:
            assert "/static/main.js" in page.read().decode()
        for name in ("vendor/xterm.mjs", "vendor/xterm.css", "vendor/addon-fit.mjs", "main.js", "icon.svg"):
            with browser.open(f"{origin}/static/{name}", timeout=STEP_SECONDS) as answer:
                assert answer.read() == (ROOT / "gateway_service/static" / name).read_bytes(), name


def test_the_contracts_are_where_it_says(installed: Environment) -> None:
    directory = Path(installed.run("splitvisor", "protos").stdout.strip())
    found = {path.relative_to(directory) for path in directory.rglob("*.proto")}
    assert found == {path.relative_to(ROOT / "proto") for path in (ROOT / "proto").rglob("*.proto")}


def test_a_base_install_has_grpc_protobuf_and_a_logger(base: Environment) -> None:
    assert set(base.distributions()) == BASE
    assert base.pip("check").returncode == 0


def test_a_base_install_serves_a_back_end(base: Environment, start_machine: StartMachine) -> None:
    """The machine is this checkout's; the device runs where there is nothing but the wheel's base install."""
    program = [str(base.python), "-P", str(ROOT / "examples/echo_device/echo_device.py")]
    machine: RunningMachine = start_machine([BackendProgram("echo", program)])
    guest = machine.guest
    sent, received = guest.place(b"stressed"), guest.allocate(16)
    assert guest.hcall(H_ECHO_SEND, UNIT, sent, 8).result == 0
    assert guest.hcall(H_ECHO_RECEIVE, UNIT, received, 16).outputs[0] == 8
    assert guest.memory[received : received + 8] == b"desserts"
    served = machine.backend("echo")
    checked = base.run("splitvisor", "health", served.address)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_a_base_install_says_what_a_machine_needs(base: Environment) -> None:
    done = base.run("splitvisor", "run")
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.endswith("pip install 'splitvisor[run]'")
    assert base.run("splitvisor", "version").stdout == f"splitvisor {base.distributions()['splitvisor']}\n"


@pytest.mark.parametrize("version", [version for version in VERSIONS if version != "{}.{}".format(*sys.version_info[:2])])
def test_it_runs_on_every_python_that_it_is_for(version: str, wheel: Path, short_path: Path) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"there is no Python {version} with its venv module")
    environment = Environment(short_path, python, wheel, "[run,testing]")
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    assert environment.run("python", "-c", code).stdout.strip() == version
    runs_the_demo_guest(environment)
    writes_a_device_whose_tests_pass(environment)


def test_the_wheel_declares_the_pythons_that_are_tested(installed: Environment) -> None:
    code = "import importlib.metadata as m, json; print(json.dumps(m.metadata('splitvisor').get_all('Classifier')))"
    classifiers = json.loads(installed.run("python", "-c", code).stdout)
    prefix = "Programming Language :: Python :: "
    assert {text.removeprefix(prefix) for text in classifiers if text.startswith(prefix)} == set(VERSIONS)
