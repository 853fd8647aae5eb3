# SPDX-License-Identifier: GPL-2.0-or-later
"""Options that are times: a number of seconds that a clock can have."""

from __future__ import annotations

from collections.abc import Callable

import typer

LONGEST = 1e9
"""Thirty years; the clocks of asyncio, gRPC and protobuf take no more than three hundred."""


def seconds(least: float, most: float = LONGEST) -> Callable[[str], float]:
    """Return what reads a number from least to most; one that is no number compares with neither, and is refused too."""

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = least - 1
        if least <= number <= most:
            return number
        raise typer.BadParameter(f"{text!r} is not a number from {least:g} to {most:.10g}.")

    return read


LIMIT = seconds(0.001)
"""Reads a time limit."""
