# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest "debian-io" for benches: its commands, ours and QEMU's."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from splitvisor.bench.boot import RUN_SECONDS
from splitvisor.bench.peers import OWN, Peer
from splitvisor.bench.shell import Shell, own_shell, qemu_shell
from splitvisor.guests.commands import Commands

GUEST = "debian-io"
PROMPT = "guest# "


class _Console:
    """A shell's console as commands need it: what comes after a match stays."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._text = ""

    def type(self, text: str) -> None:
        """Send to the guest."""
        self._shell.type(text)

    def expect(self, pattern: str, seconds: float) -> re.Match[str]:
        """Wait for a pattern. Raises BenchError."""
        wanted, deadline = re.compile(pattern), time.monotonic() + seconds
        while (match := wanted.search(self._text)) is None:
            self._text += self._shell.more(deadline, pattern).decode(errors="replace")
        self._text = self._text[match.end() :]
        return match


@contextmanager
def own_commands(directory: Path, options: Sequence[str] = ()) -> Iterator[Commands]:
    """Boot the guest with `splitvisor run`. Arguments as own_shell() has them."""
    with own_shell(directory, initrd=GUEST, options=options) as shell:
        yield commands_of(shell)


@contextmanager
def qemu_commands(directory: Path, options: Sequence[str] = (), peer: Peer = OWN) -> Iterator[Commands]:
    """Boot the guest with a QEMU. Arguments as qemu_shell() has them."""
    with qemu_shell(directory, peer, initrd=GUEST, options=options) as shell:
        yield commands_of(shell)


def commands_of(shell: Shell) -> Commands:
    """Wait for the prompt of a guest that is "debian-io". Raises BenchError."""
    console = _Console(shell)
    console.expect(PROMPT, RUN_SECONDS)
    return Commands(console)
