# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables of a terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def columns(rows: Sequence[tuple[str, ...]], indent: str = "", numbers: Collection[int] = ()) -> list[str]:
    """Return the lines of a table.

    Args:
        rows: each with as many cells; at least one.
        indent: before each line.
        numbers: the columns that end in line, from 0.
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]

    def line(row: tuple[str, ...]) -> str:
        cells = (
            cell.rjust(width) if number in numbers else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return (indent + "  ".join(cells)).rstrip()

    return [line(row) for row in rows]
