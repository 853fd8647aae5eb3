# SPDX-License-Identifier: GPL-2.0-or-later
"""README's layout table is what is there, and a newcomer who has read nothing else finds what he looks for."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
LAYOUT = README.partition("## Layout")[2].partition("\n## ")[0]
ROOMS = ("cpu_service", "hcall_service", "vio_service", "splitvisor")
"""Folders whose own folders are all listed."""


def listed() -> set[str]:
    """The folders of the table."""
    return set(re.findall(r"^\| `([\w/]+)/` \|", LAYOUT, re.MULTILINE))


def present() -> set[str]:
    """The folders that git has files in: those at the top, and the rooms of ROOMS."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    folders = {part for name in files for part in (name.partition("/")[0], "/".join(name.split("/")[:2])) if name.count("/")}
    rooms = {each for each in folders if each.partition("/")[0] in ROOMS and (ROOT / each).is_dir()}
    return {each for each in folders if "/" not in each and not each.startswith(".")} | rooms


def test_every_folder_is_in_the_table() -> None:
    assert present() - listed() == set()


def test_every_folder_of_the_table_is_there() -> None:
    assert {each for each in listed() if not (ROOT / each).is_dir()} == set()


@pytest.mark.parametrize(
    ("what", "file", "definition"),
    [
        ("the posting of console output", "cpu_service/routing/router.py", "def _post("),
        ("the TLS rule for plaintext", "splitvisor/net/addresses.py", "def is_loopback("),
        ("H_ENTER", "cpu_service/hypercalls/hash_page_table.py", "Hcall.H_ENTER"),
        ("claim()", "of_client_service/claims.py", "def claim("),
        ("the retention of tree revisions", "hcall_service/device_tree_store/sql_store.py", "retention"),
        ("the kill of a service in a scenario", "splitvisor/faults/process.py", "os.kill("),
        ("the number of bytes of console replay", "vio_service/console/output_log.py", "REPLAY_BYTES ="),
        ("the parsing of --memory", "splitvisor/machine/settings.py", "def _size("),
    ],
)
def test_the_table_leads_to(what: str, file: str, definition: str) -> None:
    folder, _, name = file.rpartition("/")
    assert folder in listed(), f"the table has no row for {folder}, where {what} is"
    assert definition in (ROOT / file).read_text(), f"{what} is not in {name} any more"


DIAGRAMS = [
    diagram.replace("<br/>", "")
    for diagram in re.findall(
        r"^```mermaid\nsequenceDiagram\n(.*?)^```$", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE | re.DOTALL
    )
]
"""Sequence diagrams, lines of a name joined."""
FILE = re.compile(r"(?:\w+/)+[\w-]+\.py")
STEP = re.compile(r"^ *(\w+)-{1,2}>>(\w+): (?:(\w+)\(\))?", re.MULTILINE)


def missing(diagram: str) -> set[str]:
    """What a sequence diagram names and is not there: files, participants, and functions of the file that they are called in."""
    found = {name for name in FILE.findall(diagram) if not (ROOT / name).is_file()}
    participants = dict(re.findall(r"^ *participant (\w+) as (.+)$", diagram, re.MULTILINE))
    for caller, called, function in STEP.findall(diagram):
        found |= {caller, called} - participants.keys()
        file = participants.get(called, "")
        if function and (ROOT / file).is_file() and f"def {function}(" not in (ROOT / file).read_text():
            found.add(f"{file}: {function}()")
    return found


def test_what_the_diagram_of_a_traps_way_names_is_there() -> None:
    [diagram] = DIAGRAMS
    assert len(set(FILE.findall(diagram))) > 15
    assert len(STEP.findall(diagram)) > 15
    assert missing(diagram) == set()


@pytest.mark.parametrize(
    ("was", "becomes", "found"),
    [
        ("link/ledger.py", "link/ledgers.py", "cpu_service/link/ledgers.py"),
        ("splitvisor/trap/progress.py", "splitvisor/progress.py", "splitvisor/progress.py"),
        ("connection->>wire: send()", "connection->>wires: send()", "wires"),
        ("vm->>dispatcher: trap()", "vm->>dispatcher: traps()", "splitvisor/trap/dispatcher.py: traps()"),
    ],
)
def test_a_wrong_name_in_the_diagram_is_found(was: str, becomes: str, found: str) -> None:
    [diagram] = DIAGRAMS
    assert was in diagram
    assert missing(diagram.replace(was, becomes)) == {found}


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_files_that_a_page_names_are_there(page: str) -> None:
    text = (ROOT / page).read_text()
    named = set(re.findall(r"`((?:\w+/)+[\w.-]+\.(?:py|proto|md|S|c|toml))`", text))
    linked = {link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link}
    base = (ROOT / page).parent
    assert {name for name in named if not (ROOT / name).exists()} == set()
    assert {link for link in linked if not (base / link).exists()} == set()
