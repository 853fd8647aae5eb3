# SPDX-License-Identifier: GPL-2.0-or-later
"""Who a peer is: a role, and the VMs that it may touch. Both stand in its certificate, in one URI of the alternative names:

splitvisor:role=console-read;vm=web-*;vm=db
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from splitvisor.errors.problem import ProblemError

SCHEME = "splitvisor:"
MAX_PATTERNS = 64
ALL_VMS = "*"

_PATTERN = re.compile(r"[a-z0-9*?-]{1,63}")
_PATTERNS_REMEDY = "give 1 to 63 characters of a-z, 0-9 and '-', with * for any and ? for one"


class Role(StrEnum):
    """What a peer is for. What each may do is declared with every rpc, in proto/."""

    CPU = "cpu"
    BACKEND = "backend"
    CONSOLE_READ = "console-read"
    CONSOLE_WRITE = "console-write"
    OPERATOR = "operator"

    @property
    def serves(self) -> bool:
        """True for the roles of services, whose certificates hold for servers too."""
        return self in (Role.CPU, Role.BACKEND)


class IdentityError(ProblemError, ValueError):
    """A role or a VM pattern cannot be used; the message says why."""


@dataclass(frozen=True)
class Identity:
    """A role and the VMs that it is for. Raises IdentityError."""

    role: Role
    vms: Sequence[str]
    """1 to 64 patterns of VM names: `*` stands for any characters, `?` for one."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.vms) <= MAX_PATTERNS:
            raise IdentityError(f"{len(self.vms)} VM patterns", f"give 1 to {MAX_PATTERNS}, '*' for all VMs")
        for pattern in self.vms:
            if not _PATTERN.fullmatch(pattern):
                raise IdentityError(f"VM pattern {pattern!r}: {_PATTERNS_REMEDY}")

    def covers(self, vm: str) -> bool:
        """Tell whether a VM is one of those. The empty name stands for all VMs at once, so it needs the pattern `*`."""
        return any(fnmatchcase(vm, pattern) for pattern in self.vms) if vm else ALL_VMS in self.vms

    def uri(self) -> str:
        """Return the form that stands in a certificate."""
        return SCHEME + ";".join((f"role={self.role}", *(f"vm={pattern}" for pattern in self.vms)))

    def __str__(self) -> str:
        return f"role {self.role}, VMs {', '.join(self.vms)}"


def parse_identity(uri: str) -> Identity:
    """Return what a certificate's URI says. Raises IdentityError for anything that Identity.uri() does not make."""
    first, *rest = uri.removeprefix(SCHEME).split(";")
    try:
        role = Role(first.removeprefix("role="))
    except ValueError:
        raise IdentityError(f"{uri[:80]!r} names no known role") from None
    identity = Identity(role, tuple(part.removeprefix("vm=") for part in rest))
    if identity.uri() != uri:
        raise IdentityError(f"{uri[:80]!r} is not {SCHEME}role=ROLE;vm=PATTERN")
    return identity
