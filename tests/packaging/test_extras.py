# SPDX-License-Identifier: GPL-2.0-or-later
"""Without an extra, whatever wants it says so in one line that names it, with exit status 2. Modules are taken away in turn."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from typer.main import get_command

from splitvisor.cli import PLAIN, SMALL
from splitvisor.cli.app import make_app
from splitvisor.process.extras import EXTRAS
from splitvisor.service.names import ALL_SERVICE_NAMES
from tests.guests.harness import ROOT, STEP_SECONDS
from tests.packaging.environments import VERSIONS

HIDE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        return None

sys.meta_path.insert(0, Hidden())
"""


def splitvisor_without(module: str, arguments: Sequence[str], directory: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line where a module is not installed, in every process that it starts."""
    (directory / "sitecustomize.py").write_text(HIDE.format(module=module))
    environment = {**os.environ, "PYTHONPATH": f"{directory}:{ROOT}", "XDG_RUNTIME_DIR": str(directory)}
    return subprocess.run(
        [sys.executable, "-P", "-m", "splitvisor", *arguments], capture_output=True, text=True, timeout=STEP_SECONDS, check=False,
        env=environment, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def people_s_commands() -> list[str]:
    app = get_command(make_app())
    commands = getattr(app, "commands", {})
    return sorted(set(commands) - set(SMALL) - PLAIN - {"run"})


STORE = "postgresql://nobody@/trees?host=/nonexistent"
CASES = [
    *((module, "run", ["run"]) for module in EXTRAS["run"]),
    *((module, "run", ["version", "--help"]) for module in EXTRAS["run"]),
    *(("typer", "run", [command]) for command in people_s_commands()),
    *((EXTRAS[name.extra][0], name.extra, ["service", name.command]) for name in ALL_SERVICE_NAMES),
    *((module, "gateway", ["service", "gateway"]) for module in EXTRAS["gateway"][1:]),
    ("prometheus_client", "metrics", ["service", "vio", "--metrics", "0"]),
    ("prometheus_client", "metrics", ["service", "gateway", "--listen-http", "127.0.0.1:0", "--metrics", "0"]),
    *((module, "otel", ["service", "vio", "--otel", "http://127.0.0.1:1"]) for module in EXTRAS["otel"]),
    ("psycopg", "postgresql", ["service", "hcall", "--store", STORE]),
    ("psycopg", "postgresql", ["run", "--store", STORE]),
]


@pytest.mark.parametrize(
    ("module", "extra", "arguments"), CASES, ids=lambda value: value if isinstance(value, str) else "-".join(value)
)
def test_what_wants_an_extra_says_so(module: str, extra: str, arguments: Sequence[str], short_path: Path) -> None:
    done = splitvisor_without(module, arguments, short_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("splitvisor"), line
    assert module in line or module == "psycopg"
    assert line.endswith(f"pip install 'splitvisor[{extra}]'"), line


@pytest.mark.parametrize("arguments", [["version"], ["protos"], ["service", "--help"], ["health", "--help"]])
def test_what_wants_none_does_without(arguments: Sequence[str], short_path: Path) -> None:
    done = splitvisor_without("typer", arguments, short_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_the_table_has_what_the_extras_bring() -> None:
    """By requirement: each brings a module of the table, and no module of it comes from elsewhere."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    brought_by = packages_distributions()
    for extra, modules in EXTRAS.items():
        required = {re.split(r"[\[<>=]", requirement)[0] for requirement in extras[extra]} - {"splitvisor"}
        bringing = [{name.lower().replace("_", "-") for name in brought_by[module.partition(".")[0]]} for module in modules]
        assert required <= set().union(*bringing), extra
        assert all(names & required for names in bringing), extra


def test_the_page_about_installing_has_every_extra_and_every_python() -> None:
    page = (ROOT / "docs/install.md").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    table = page.partition("| Extra |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(extras) - {"dev"}
    assert set(VERSIONS) <= set(re.findall(r"\b3\.\d+\b", page.partition("## Pythons")[2]))


def test_the_protos_are_where_it_says(short_path: Path) -> None:
    done = splitvisor_without("typer", ["protos"], short_path)
    assert (Path(done.stdout.strip()) / "splitvisor/trap/v1/trap.proto").is_file()
