# SPDX-License-Identifier: GPL-2.0-or-later
"""A signal ends each of our programs at once and quietly, while it still loads too; what must be put in order is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 60

_HOOK = """
import os, sys
class Hook:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["SIGNAL_AT"]:
            del os.environ["SIGNAL_AT"]
            sys.meta_path.remove(self)
            os.kill(os.getpid(), int(os.environ["SIGNAL"]))
sys.meta_path.insert(0, Hook())
"""
"""Sends the process a signal when a module is imported."""

_PROGRAMS: Sequence[tuple[Sequence[str], str]] = (
    (("-m", "splitvisor", "run"), "splitvisor.cli"),
    (("-m", "splitvisor", "run"), "uvloop"),
    (("-m", "splitvisor", "run"), "splitvisor.run.machine"),
    (("-m", "splitvisor", "console", "list"), "typer"),
    (("-m", "splitvisor", "vm", "status", "vm", "--cpu", "unix:/nowhere"), "grpc"),
    (("-m", "splitvisor", "health", "127.0.0.1:1"), "grpc"),
    (("-m", "splitvisor", "service", "vio"), "vio_service.service"),
    (("-m", "splitvisor.service.main", "cpu"), "grpc"),
    (("examples/counter_rtas/counter_rtas.py",), "splitvisor.service.main"),
)


_CASES = (
    *((*program, signal.SIGINT) for program in _PROGRAMS),
    (*_PROGRAMS[2], signal.SIGTERM),
    (*_PROGRAMS[6], signal.SIGHUP),
)


@pytest.mark.parametrize(("command", "module", "number"), _CASES)
def test_a_signal_while_a_program_loads_ends_it_quietly(
    tmp_path: Path, command: Sequence[str], module: str, number: signal.Signals
) -> None:
    (tmp_path / "sitecustomize.py").write_text(_HOOK)
    environment = {
        **os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "SIGNAL_AT": module, "SIGNAL": str(int(number)),
        "TMPDIR": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=SECONDS, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", "")
    assert not list(tmp_path.glob("splitvisor-*/run.json")), "its directories are gone"


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)


def test_a_signal_that_was_blocked_at_the_start_counts() -> None:
    done = _python(
        "import os, signal\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "print('started', flush=True)\n"
        "from splitvisor.process.signals import end_quietly\n"
        "end_quietly()\n"
        "print('went on')\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "started\n", "")


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    done = _python(
        "import os, signal\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from splitvisor.process.signals import Unwinding, end_quietly\n"
        "end_quietly()\n"
        "with Unwinding():\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "print('went on')\n"
    )
    assert (done.returncode, done.stdout) == (0, "went on\n")


def test_what_unwinds_is_put_in_order_and_a_second_signal_does_not_wait() -> None:
    done = _python(
        "import os, signal\n"
        "from splitvisor.process.signals import Unwinding, end_quietly\n"
        "end_quietly()\n"
        "with Unwinding():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    finally:\n"
        "        print('in order')\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        print('waited')\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (143, "in order\n", "")


def test_a_coroutine_is_cancelled_and_a_second_signal_does_not_wait() -> None:
    done = _python(
        "import asyncio, os, signal\n"
        "from splitvisor.process.signals import run\n"
        "async def work():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        await asyncio.sleep(60)\n"
        "    except asyncio.CancelledError:\n"
        "        print('in order', flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        await asyncio.sleep(60)\n"
        "run(work())\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "in order\n", "")
