# SPDX-License-Identifier: GPL-2.0-or-later
"""The menu of a terminal: `^]`, then one key."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

ESCAPE = 0x1D
"""Control and ]."""


class Command(Enum):
    """What a key after `^]` does; `^]` itself goes to the guest, any other key closes the menu."""

    QUIT = "q"
    TAKE_OVER = "f"
    RELEASE = "r"
    DISCARD = "d"
    STATUS = "s"
    LIST = "l"
    NEXT = "n"
    HELP = "?"


MENU = "q quit, f take over, r read only, d drop input, s status, l list, n next console, ? help, ^] send ^]"
HELP = (
    "q  leave; the guest keeps running unless this is its `splitvisor run`",
    "f  type here; the present writer becomes a reader and gets a notice",
    "r  only read, so that another terminal can type",
    "d  drop what was typed and the guest has not read, such as a paste into the wrong console",
    "s  show what this terminal is attached to",
    "l  list the consoles of this VM",
    "n  switch to the next console of this VM",
    "?  these lines",
    "^] send ^] to the guest; any other key closes the menu",
)

_COMMANDS = {ord(command.value): command for command in Command}


class MenuFilter:
    """Finds commands anywhere in the input, even inside pasted text or across reads."""

    def __init__(self) -> None:
        self.is_open = False
        """True after `^]`: the next key is a command."""

    def feed(self, data: bytes) -> Iterator[bytes | Command]:
        """Yield what goes to the guest and the commands, in the order in which they were typed."""
        for index, part in enumerate(data.split(bytes((ESCAPE,)))):
            if index:
                if self.is_open:  # The second of two.
                    yield bytes((ESCAPE,))
                self.is_open = not self.is_open
            text = part
            if text and self.is_open:
                self.is_open = False
                command = _COMMANDS.get(text[0])
                if command is not None:
                    yield command
                text = text[1:]
            if text:
                yield text
