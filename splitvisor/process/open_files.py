# SPDX-License-Identifier: GPL-2.0-or-later
"""The limit of open files (`ulimit -n`): raised where it may be, and told where it is too low.

gRPC and libuv abort, or try again for ever, when they get no descriptor; nothing that comes later could say why.
"""

from __future__ import annotations

import resource

from splitvisor.errors.problem import ProblemError

LEAST = 64
"""Files that a run or a service of one VM has open, and some more."""


class TooFewFilesError(ProblemError):
    """This process may not open as many files as it needs."""


def require_open_files() -> None:
    """Raise the soft limit to LEAST. Raises TooFewFilesError when the hard limit is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < LEAST:
        if hard != resource.RLIM_INFINITY and hard < LEAST:
            raise TooFewFilesError(f"only {hard} files may be open at once (ulimit -n)", f"allow at least {LEAST}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (LEAST, hard))
