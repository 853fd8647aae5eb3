# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine's native part: what Python would do too slowly, or cannot do at all inside Unicorn.

The C files here become native.so, which is part of the package: nobody needs a compiler to run it. The library takes Unicorn's
functions from the Unicorn that this process has loaded, by their names. `python -m cpu_service.engine.native.build` makes it.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import unicorn.unicorn_py3.unicorn  # noqa: F401  # Its library must be there first, for ours needs it.

from cpu_service.engine.layout import UnsupportedEngineError

BUILT = Path(__file__).with_name("native.so")


@cache
def library() -> ctypes.CDLL:
    """Load the native part, once.

    Raises UnsupportedEngineError, for instance when Unicorn lacks a function that the native part calls.
    """
    try:
        return ctypes.CDLL(str(BUILT))
    except OSError as error:
        raise UnsupportedEngineError(f"whose functions the native part needs: {error}") from error


def address(name: str) -> int:
    """Return where a function or variable of the native part is.

    Raises UnsupportedEngineError, when it cannot be loaded; ValueError, when it has nothing of the name.
    """
    return ctypes.addressof(ctypes.c_char.in_dll(library(), name))
