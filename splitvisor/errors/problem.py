# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong and what to do about it, as a value and as an exception. Nobody takes a message apart to find the two."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True)
class Problem:
    """A problem; as a text it is one line."""

    what: str
    """Where it is, and what is wrong."""
    remedy: str = ""
    """What to do; empty: what is wrong says it."""
    reason: str = ""
    """The kind of problem, for programs: "NO_SUCH_MACHINE"."""

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}" if self.remedy else self.what

    def at(self, place: str) -> Problem:
        """Return the same problem of a named place: a key, a file, an address."""
        return replace(self, what=f"{place}: {self.what}")


class ProblemError(Exception):
    """A problem that ends what was asked for. Its kinds are the subclasses.

    Args:
        what: is wrong.
        remedy: what to do about it.
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        self.problem = Problem(what, remedy, _reason(type(self)))
        super().__init__(str(self.problem))


def problem_of(error: Exception) -> Problem:
    """Return the problem that an exception is about; of one that is no ProblemError, its message."""
    return error.problem if isinstance(error, ProblemError) else Problem(str(error), reason=_reason(type(error)))


def _reason(kind: type[Exception]) -> str:
    """The kind of problem: the exception's name without its last word, as `NoSlotError` is NO_SLOT; Python's own say nothing."""
    if kind.__module__ == "builtins" or kind.__name__.startswith("_"):
        return ""
    return _WORD_START.sub("_", kind.__name__.removesuffix("Error")).upper()
