# SPDX-License-Identifier: GPL-2.0-or-later
"""How commands end whose output cannot be written, many of them in little time: forks of a process that has loaded them all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from typer.main import get_command

from splitvisor.cli.app import make_app
from tests.guests.harness import ROOT

FULL = "/dev/full"
READER_GONE_OUTPUT = "reader gone"
SECONDS = 120

_PROGRAM = """
import json, os, sys, traceback
from typer.testing import CliRunner
import splitvisor.service.main, rich.live
from splitvisor.cli import main
from splitvisor.cli.app import make_app
from splitvisor.service.names import ALL_SERVICE_NAMES

# Loaded once for all forks.
CliRunner().invoke(make_app(), ["vm", "--help"])
for name in ALL_SERVICE_NAMES:
    name.load()
wrong = {}
for arguments, output, *expected in json.loads(sys.argv[1]):
    said, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        if output == "reader gone":
            read, write = os.pipe()
            os.close(read)
        else:
            write = os.open(output, os.O_WRONLY)
        os.dup2(write, 1)
        os.dup2(say, 2)
        os.close(write)
        os.close(say)
        sys.argv = ["splitvisor", *arguments]
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
        except BaseException:
            traceback.print_exc()
            status = 99
        os._exit(status)
    os.close(say)
    with open(said, "rb") as file:
        text = file.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if [status, text.count("\\n")] != expected:
        wrong[" ".join([*arguments, ">", output])] = [status, text]
print(json.dumps(wrong))
"""


def commands() -> list[tuple[str, ...]]:
    """All commands and groups of commands, as one types them."""

    def below(command: Any, names: tuple[str, ...]) -> list[tuple[str, ...]]:
        inner = getattr(command, "commands", {})
        return [names, *(found for key, each in inner.items() for found in below(each, (*names, key)))]

    return below(get_command(make_app()), ())


def closing(descriptors: Sequence[int]) -> list[str]:
    """Return what stands before a command that is to start with descriptors closed."""
    return ["sh", "-c", 'exec "$@" ' + " ".join(f"{descriptor}>&-" for descriptor in descriptors), "sh"]


def wrong_ends(table: Sequence[tuple[Sequence[str], str, int, int]], **environment: str) -> Mapping[str, Any]:
    """Run commands one after another; return those that end in another way, with their statuses and what they said.

    Args:
        table: arguments, standard output (a path or READER_GONE_OUTPUT), exit status, and number of lines on standard error.
    """
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, json.dumps(table)], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        env={**os.environ, **environment}, timeout=SECONDS, check=True,
    )  # fmt: skip
    wrong: Mapping[str, Any] = json.loads(done.stdout)
    return wrong
