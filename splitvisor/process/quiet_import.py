# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps a library from importing an optional dependency that is not wanted in this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def without(name: str) -> Iterator[None]:
    """Make `import name` raise ImportError inside the with block, unless it was imported before."""
    modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]  # None means "not there", see importlib
    hidden = name not in modules
    if hidden:
        modules[name] = None
    try:
        yield
    finally:
        if hidden:
            del modules[name]
