# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may do what through the gateway: bearer tokens, each with a role and the VMs that it is for.

The gateway keeps no token, only SHA-256 sums: a token is random, so nothing slower is needed, and looking a sum up tells nothing
about the others.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Protocol

from splitvisor.process.logging import get_logger
from splitvisor.process.toml_file import TomlError, read_toml

TOKENS_BYTES: Final = 1 << 20
"""The largest file of tokens."""
MAX_TOKENS = 1000
MAX_NAME = 64
"""Characters of a token's name; consoles show it."""
_SUM_DIGITS = 64

_log = get_logger(__name__)


class TokenError(ValueError):
    """A file of tokens cannot be used; one line that says where, why and what to give instead."""


class Role(StrEnum):
    """What a token is good for; the names are those of certificates."""

    CONSOLE_READ = "console-read"
    CONSOLE_WRITE = "console-write"
    OPERATOR = "operator"


class Action(StrEnum):
    """What can be asked of the gateway about a VM."""

    LIST = "list VMs and their consoles"
    READ_CONSOLE = "read consoles"
    WRITE_CONSOLE = "type on consoles"
    SEE_STATUS = "see status and traps"
    READ_TREE = "read device trees"
    CONTROL = "pause, resume, reset or stop"


PERMISSIONS: Final[Mapping[Action, frozenset[Role]]] = {
    Action.LIST: frozenset(Role),
    Action.READ_CONSOLE: frozenset(Role),
    Action.WRITE_CONSOLE: frozenset({Role.CONSOLE_WRITE, Role.OPERATOR}),
    Action.SEE_STATUS: frozenset({Role.OPERATOR}),
    Action.READ_TREE: frozenset({Role.OPERATOR}),
    Action.CONTROL: frozenset({Role.OPERATOR}),
}
"""Who may do it: whose certificate would be let through by the services for the calls behind it."""


@dataclass(frozen=True)
class Principal:
    """Who asks."""

    name: str
    role: Role
    vms: Sequence[str]
    """Shell patterns of VM names."""

    def knows(self, vm: str) -> bool:
        """Tell whether a VM exists for this one."""
        return any(fnmatchcase(vm, pattern) for pattern in self.vms)

    def may(self, action: Action) -> bool:
        """Tell whether the role is enough."""
        return self.role in PERMISSIONS[action]


def token_sum(token: str) -> str:
    """Return what a token is known by: 64 hexadecimal digits."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


class Tokens(Protocol):
    """Knows tokens."""

    def principal(self, sum_of_token: str) -> Principal | None:
        """Return whose token it is now."""


class StartToken:
    """One operator's token for all VMs, made anew at each start."""

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(32)
        self._sum = token_sum(self.token)
        self._principal = Principal("operator", Role.OPERATOR, ("*",))

    def principal(self, sum_of_token: str) -> Principal | None:
        """See Tokens."""
        return self._principal if secrets.compare_digest(sum_of_token, self._sum) else None


class TokenFile:
    """Tokens of a TOML file, which is read again when it changes::

        [[token]]
        name = "alice"
        sha256 = "64 hexadecimal digits"
        role = "console-write"
        vms = ["web-*"]

    Raises TokenError when it cannot be used at the start; later the tokens that were read before stay, and the log tells.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version = self._stat()
        self._tokens = read_tokens(path)

    def principal(self, sum_of_token: str) -> Principal | None:
        """See Tokens."""
        version = self._stat()
        if version != self._version:
            self._version = version
            try:
                self._tokens = read_tokens(self._path)
            except TokenError as error:
                _log.error("tokens not read again", reason=str(error))
        return self._tokens.get(sum_of_token)

    def _stat(self) -> tuple[int, int, int]:
        try:
            status = self._path.stat()
        except OSError:
            return (0, 0, 0)
        return (status.st_ino, status.st_mtime_ns, status.st_size)


def read_tokens(path: Path) -> Mapping[str, Principal]:
    """Return principals by the sum of their token. Raises TokenError."""
    try:
        content = read_toml(path, TOKENS_BYTES)
    except OSError as error:
        raise TokenError(f"{path}: {error.strerror}; give a file of tokens, see docs/web.md") from error
    except TomlError as error:
        raise TokenError(f"{path}: not TOML: {error}") from error
    entries = content.get("token", [])
    if content.keys() - {"token"} or not isinstance(entries, list) or not 0 < len(entries) <= MAX_TOKENS:
        raise TokenError(f"{path}: not 1 to {MAX_TOKENS} tables [[token]] and nothing else; see docs/web.md")
    tokens: dict[str, Principal] = {}
    for number, entry in enumerate(entries, 1):
        where = f"{path}: token {number}"
        sum_of_token, principal = _read_token(where, entry)
        if sum_of_token in tokens:
            raise TokenError(f"{where}: the same sha256 as {tokens[sum_of_token].name!r}; give each a token of its own")
        tokens[sum_of_token] = principal
    return tokens


def _read_token(where: str, entry: Any) -> tuple[str, Principal]:
    keys = {"name", "sha256", "role", "vms"}
    if not isinstance(entry, dict) or entry.keys() != keys:
        raise TokenError(f"{where}: give {', '.join(sorted(keys))} and nothing else")
    name, digest, role, vms = entry["name"], entry["sha256"], entry["role"], entry["vms"]
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= MAX_NAME:
        raise TokenError(f"{where}: name must be 1 to {MAX_NAME} printable characters; give who holds the token")
    if not isinstance(digest, str) or len(digest) != _SUM_DIGITS or set(digest) - set("0123456789abcdef"):
        raise TokenError(f"{where}: sha256 must be {_SUM_DIGITS} hexadecimal digits; sha256sum prints them")
    if role not in list(Role):
        raise TokenError(f"{where}: role {role!r} is none; give one of {', '.join(Role)}")
    if not isinstance(vms, list) or not vms or not all(isinstance(pattern, str) and pattern for pattern in vms):
        raise TokenError(f'{where}: vms must be a list of names or patterns; give ["*"] for all')
    return digest, Principal(name, Role(role), tuple(vms))
