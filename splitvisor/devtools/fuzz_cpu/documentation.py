# SPDX-License-Identifier: GPL-2.0-or-later
"""What docs/compatibility.md says of instructions, from the tables in the code: `./dev docs`."""

from __future__ import annotations

import sys
from pathlib import Path

from splitvisor.devtools.fuzz_cpu.differences import KNOWN
from splitvisor.devtools.fuzz_cpu.instructions import LEFT_OUT, LEFT_OUT_LITTLE, load, named_by

BEGIN, END = "<!-- ./dev docs begins: instructions -->\n", "<!-- ./dev docs ends: instructions -->\n"


def tables() -> str:
    """Return both tables as Markdown."""
    names = sorted({each.name for each in load() if not each.newer or each.name.startswith("mffs")})
    lines = ["| Instructions | What differs | Reason |", "|---|---|---|"]
    lines += [f"| {_listed(names, known.pattern)} | {known.what} | {known.reason} |" for known in KNOWN]
    lines += ["", "| Not tried | Reason |", "|---|---|"]
    for rows, end in ((LEFT_OUT, ""), (LEFT_OUT_LITTLE, " (only in little endian)")):
        lines += [f"| {_listed(sorted({each.name for each in load()}), pattern)} | {reason}{end} |" for pattern, reason in rows]
    return "\n" + "\n".join(lines) + "\n\n"


def _listed(names: list[str], pattern: str) -> str:
    """Return the mnemonics of a pattern, without the forms that only record."""
    found = list(dict.fromkeys(name.removesuffix("[.]").removesuffix(".") for name in names if named_by(pattern, name)))
    return ", ".join(f"`{name}`" for name in found)


def rewritten(page: str) -> str:
    """Return the page with the tables as they are now. Raises ValueError when it lacks a mark."""
    before, _, rest = page.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"the page has no place for the tables: {BEGIN.strip()}, {END.strip()}")
    return before + BEGIN + tables() + END + after


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(rewritten(path.read_text()))
