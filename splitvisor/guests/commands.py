# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands in the guest "debian-io", over its console: output, status, and files that are put there."""

from __future__ import annotations

import base64
import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

COMMAND_S = 30.0
"""How long a command may take unless more is said."""
_TYPED = 400
"""Characters of a line that a shell with line editing surely takes; what is longer is put into a file first."""
_QUIET = "echo 1 >/proc/sys/kernel/printk"
"""Only a dying kernel writes on the console: its messages would stand among a command's output. dmesg has them."""


class Terminal(Protocol):
    """The guest's console."""

    def type(self, text: str) -> None:
        """Send to the guest."""

    def expect(self, pattern: str, seconds: float) -> re.Match[str]:
        """Wait for a pattern in what was not matched before; raise when it does not come in time.

        What comes between matches is from the match's `pos` to its start.
        """


@dataclass(frozen=True)
class Answer:
    """What a command left."""

    status: int
    """As $? has it."""
    output: str
    """Standard output and standard error, in the order in which they were written; lines end with a line feed only."""


class CommandError(AssertionError):
    """A command in the guest failed that must not: its status and what it wrote."""

    def __init__(self, command: str, answer: Answer) -> None:
        super().__init__(f"in the guest, {command!r} ended with {answer.status}:\n{answer.output[-4000:]}")
        self.answer = answer


class Commands:
    """Runs commands in a guest that shows the shell's prompt.

    Each command has a shell of its own (dash), without input: directories and variables do not stay, files do. One that stays in
    the background must have its output elsewhere than on the console.
    """

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._numbers: Iterator[int] = itertools.count(1)
        self.ok(_QUIET)

    def run(self, command: str, seconds: float = COMMAND_S) -> Answer:
        """Run a command, whose output is text. Raises what the terminal raises when it does not end within seconds."""
        typed = shlex.quote(command)
        if len(typed) > _TYPED or "\n" in command:
            self.put("/tmp/command", command.encode())
            typed = "'. /tmp/command'"
        return self._ask(typed, seconds)

    def ok(self, command: str, seconds: float = COMMAND_S) -> str:
        """Run a command that must succeed; return its output without white space around it. Raises CommandError."""
        answer = self.run(command, seconds)
        if answer.status != 0:
            raise CommandError(command, answer)
        return answer.output.strip()

    def wait_for(self, command: str, seconds: float = COMMAND_S) -> str:
        """Wait until a command succeeds, and return its output; the guest tries ten times a second. Raises CommandError."""
        tries = (
            f'n=0; until out=$({command}); do n=$((n + 1)); [ $n -lt {10 * seconds:.0f} ] || exit 1; sleep 0.1; done; echo "$out"'
        )
        # The guest's clock and the time that the command takes are the guest's: the host waits longer.
        return self.ok(tries, 10 * seconds)

    def put(self, path: str, data: bytes) -> None:
        """Write a file, through the console: for scripts, not for megabytes. Raises CommandError."""
        text = base64.b64encode(data).decode()
        where = shlex.quote(path)
        self._check(f": >{where}.base64")
        for start in range(0, len(text), _TYPED - 100):
            self._check(f"echo {text[start : start + _TYPED - 100]} >>{where}.base64")
        self._check(f"base64 -d {where}.base64 >{where} && rm {where}.base64")

    def _check(self, command: str) -> None:
        answer = self._ask(shlex.quote(command), COMMAND_S)
        if answer.status != 0:
            raise CommandError(command, answer)

    def _ask(self, typed: str, seconds: float) -> Answer:
        number = next(self._numbers)
        self._terminal.type(f"answer {number} {typed}\n")
        # The echo of what was typed has no "@", and a shell that edits lines may break it anywhere.
        self._terminal.expect(rf"@{number}<\r?\n", max(seconds, COMMAND_S))
        # Only the end is looked for: a pattern for the output too took the square of its length, with every piece that came.
        found = self._terminal.expect(rf"\r?\n@{number}>(\d+)\r?\n", seconds)
        return Answer(int(found[1]), found.string[found.pos : found.start()].replace("\r\n", "\n"))
