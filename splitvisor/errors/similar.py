# SPDX-License-Identifier: GPL-2.0-or-later
"""What somebody meant who has mistyped a name."""

from __future__ import annotations

from collections.abc import Iterable

MOST = 3
"""Names that are offered."""


def similar(name: str, known: Iterable[str]) -> list[str]:
    """Return the known names that are most like a mistyped one, the best first; often there is none."""
    from difflib import get_close_matches  # mistakes are rare, and it is slow to load

    bare = _bare(name)
    by_bare: dict[str, str] = {}
    for each in known:
        by_bare.setdefault(_bare(each), each)
    found = get_close_matches(bare, by_bare, MOST, 0.65)
    # Who stops typing too early is not like the name by count of letters.
    started = sorted(each for each in by_bare if len(bare) > 1 and each.startswith(bare))
    return [by_bare[each] for each in dict.fromkeys((*found, *started))][:MOST]


def _bare(name: str) -> str:
    """What counts of a name: all options are alike in their dashes."""
    return name.lower().lstrip("-").replace("_", "-")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "did you mean NAME?" for a mistyped name; an empty text when none is like it."""
    found = similar(name, known)
    return f"did you mean {' or '.join(found)}?" if found else ""
