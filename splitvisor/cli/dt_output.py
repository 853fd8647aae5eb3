# SPDX-License-Identifier: GPL-2.0-or-later
"""How `splitvisor dt` shows trees: as text, in colours on a terminal, and as JSON.

What comes from a guest is escaped before it gets here: names have the specification's characters, values are formatted.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import typer

from splitvisor.tree.diff import Change
from splitvisor.tree.dts import format_property, format_value, is_text
from splitvisor.tree.fdt import Node

ORIGINS = {1: "seed", 2: "cas", 3: "quiesce", 4: "update-dt", 5: "hotplug", 6: "restore"}
"""TreeOrigin for people."""

_LINE = re.compile(r"^(\t*)([^\s=;]+)( \{| = |;$)(.*)$")


def _paint(text: str, **style: Any) -> str:
    """Colour a text; typer.echo takes the colours away again where stdout is no terminal."""
    return text if os.environ.get("NO_COLOR") else typer.style(text, **style)


def origin(revision: Any) -> str:
    """Return where a TreeRevision came from."""
    return ORIGINS.get(revision.origin, str(revision.origin))


def _time(revision: Any) -> str:
    return (
        datetime.fromtimestamp(revision.time.ToNanoseconds() / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def revision_fields(revision: Any) -> dict[str, Any]:
    """Return a TreeRevision for JSON."""
    return {
        "revision": revision.number, "time": _time(revision), "origin": origin(revision), "size": revision.size,
        "sha256": revision.sha256.hex(),
    }  # fmt: skip


def value_fields(value: bytes) -> dict[str, Any]:
    """Return a property's value for JSON: always its bytes, and texts where it looks like such."""
    fields: dict[str, Any] = {"hex": value.hex()}
    if value and is_text(value):
        fields["text"] = value[:-1].decode("ascii").split("\0")
    return fields


def node_fields(node: Node) -> dict[str, Any]:
    """Return a node and everything under it for JSON. The reader has bounded how deep that is."""
    return {
        "name": node.name,
        "properties": {name: value_fields(value) for name, value in node.properties.items()},
        "children": [node_fields(child) for child in node.children],
    }


def change_fields(change: Change) -> dict[str, Any]:
    """Return a difference for JSON."""
    kind = "added" if change.before is None else "removed" if change.after is None else "changed"
    fields: dict[str, Any] = {"path": change.path, "property": change.name, "kind": kind}
    if change.name is not None:
        fields["before"] = None if change.before is None else value_fields(change.before)
        fields["after"] = None if change.after is None else value_fields(change.after)
    return fields


def print_dts(lines: Iterable[str]) -> None:
    """Print a tree's lines."""
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            typer.echo(line)
            continue
        indent, name, sign, rest = match.groups()
        style = {"fg": "blue", "bold": True} if sign == " {" else {"fg": "cyan"}
        typer.echo(f"{indent}{_paint(name, **style)}{sign}{rest}")


def print_names(node: Node, *, as_json: bool) -> None:
    """Print what a node has."""
    children = [child.name for child in node.children]
    if as_json:
        typer.echo(json.dumps({"properties": list(node.properties), "children": children}))
        return
    for name in node.properties:
        typer.echo(_paint(name, fg="cyan"))
    for name in children:
        typer.echo(_paint(f"{name}/", fg="blue", bold=True))


def print_value(value: bytes) -> None:
    """Print a property's value: texts one per line, without quotes; everything else as in a tree."""
    if value and is_text(value) and value.isascii() and all(byte == 0 or 0x20 <= byte < 0x7F for byte in value):
        for text in value[:-1].decode("ascii").split("\0"):
            typer.echo(text)
    elif value:
        typer.echo(format_value(value))


def print_revision(revision: Any, *, head: bool = False) -> None:
    """Print a line about a revision."""
    number = _paint(f"{revision.number:>5}", bold=True)
    kind = _paint(f"{origin(revision):<10}", fg="cyan")
    mark = "  head" if head else ""
    typer.echo(f"{number}  {_time(revision)}  {kind}{revision.size:>8} bytes  {revision.sha256.hex()[:12]}{mark}")


def print_changes(vm: str, before: Any, after: Any, changes: Sequence[Change]) -> None:
    """Print differences, grouped by node."""
    typer.echo(_paint(f"--- {vm} revision {before.number} ({origin(before)})", bold=True))
    typer.echo(_paint(f"+++ {vm} revision {after.number} ({origin(after)})", bold=True))
    shown: str | None = None
    for change in changes:
        if change.name is None:
            added = change.before is None
            typer.echo(_paint(f"{'+' if added else '-'} {change.path}", fg="green" if added else "red", bold=True))
            shown = change.path
            continue
        if change.path != shown:
            typer.echo(_paint(f"  {change.path or '(outside of the nodes)'}", fg="blue", bold=True))
            shown = change.path
        for sign, colour, value in (("-", "red", change.before), ("+", "green", change.after)):
            if value is not None:
                typer.echo(_paint(f"{sign}     {format_property(change.name, value)}", fg=colour))
    typer.echo(f"{len(changes)} {'difference' if len(changes) == 1 else 'differences'}")


def print_findings(name: str, size: int, wrong: Sequence[tuple[str, str]]) -> None:
    """Print the outcome of a check."""
    for path, text in wrong:
        typer.echo(f"{_paint(path, fg='blue', bold=True)}{': ' if path else ''}{text}")
    found = f"{len(wrong)} problem{'s' if len(wrong) > 1 else ''}"
    verdict = _paint(found, fg="red") if wrong else _paint("valid", fg="green")
    typer.echo(f"{name}: {size} bytes, {verdict}")
