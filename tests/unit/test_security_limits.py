# SPDX-License-Identifier: GPL-2.0-or-later
"""The limits that docs/security.md tells are those of the code."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).resolve().parent.parent.parent / "docs" / "security.md"
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "s": 1, "ms": 1, "": 1}


def told() -> list[tuple[str, str]]:
    """(limit, constant) of each row."""
    rows = DOCUMENT.read_text().partition("\n## Limits\n")[2].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if row.startswith("| ") and "`" in row]
    return [(limit, constant.strip("`")) for _, limit, constant in cells]


@pytest.mark.parametrize(("limit", "constant"), told(), ids=lambda text: text)
def test_a_limit_is_as_told(limit: str, constant: str) -> None:
    number, _, unit = limit.replace(",", "").partition(" ")
    module, _, name = constant.rpartition(".")
    assert getattr(importlib.import_module(module), name) == int(number) * UNITS[unit]


def test_there_are_limits_of_every_service() -> None:
    assert {constant.partition(".")[0] for _, constant in told()} >= {
        "splitvisor", "cpu_service", "hcall_service", "vio_service", "of_client_service",
    }  # fmt: skip
