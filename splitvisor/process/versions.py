# SPDX-License-Identifier: GPL-2.0-or-later
"""What is said to `--version`, of the command line and of a service."""

from __future__ import annotations

import platform

from splitvisor import __version__


def versions() -> str:
    """Return a line: the versions of Splitvisor, Python, and Unicorn where it is installed."""
    from importlib.metadata import PackageNotFoundError, version  # slow to load, and rarely wanted

    known = [f"Python {platform.python_version()}"]
    try:
        known.append(f"unicorn {version('unicorn')}")
    except PackageNotFoundError:
        known.append("no unicorn")
    return f"splitvisor {__version__} ({', '.join(known)})"
