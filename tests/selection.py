# SPDX-License-Identifier: GPL-2.0-or-later
"""Which tests run and which of them share a process: the marks of every folder, `--fast` and `--long`, and the workers.

A test has the marks of the longest path of KINDS that it is below; one below none of them is an error. Whole folders are shared
out among as many processes as there are processors (pytest-xdist); a file or a test by name runs in pytest's own, for a debugger.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePath

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests import amounts

ROOT = Path(__file__).resolve().parents[1]
LONG_TIMEOUT_S = 3600


@dataclass(frozen=True)
class Kind:
    """The tests below a path.

    Attributes:
        path: a folder or a file of tests, from the root of the repository.
        marks: what they have; pyproject.toml says what each means.
        together: all run in one process, for they share what takes long to make or is there but once.
    """

    path: str
    marks: tuple[str, ...] = ()
    together: bool = False


SLOW_FILES = (
    "tests/component/test_scsi_conformance.py",
    "tests/component/test_transcript_kills.py",
    "tests/unit/test_site.py",
    "tests/component/test_bench.py",
    "tests/component/test_block_devices.py",
    "tests/component/test_machine_service.py",
    "tests/component/test_store_wait.py",
    "tests/component/test_console_cli.py",
    "tests/component/test_nbd_disk.py",
    "tests/component/test_snapshot_service.py",
    "tests/component/test_console_terminal.py",
    "tests/component/test_lan_wires.py",
    "tests/component/test_llan_hostile.py",
    "tests/component/test_tls.py",
    "tests/component/test_blob_reader_oracle.py",
    "tests/component/test_hostile_guest.py",
    "tests/sdk/test_tutorial.py",
    "tests/sdk/test_new_device.py",
    "tests/component/test_vm_control.py",
    "tests/component/test_fault_cli.py",
    "tests/component/test_store_kills.py",
    "tests/component/test_gateway.py",
    "tests/component/test_metrics.py",
    "tests/component/test_access.py",
    "tests/component/test_service.py",
)
"""Those of quick folders that take more than 5 s of a processor, the slowest first."""

KINDS = (
    Kind("tests/guests/test_debian_installer.py", ("guest",)),
    Kind("tests/chaos", ("guest",)),
    Kind("tests/stack", ("stack",), together=True),
    Kind("tests/packaging", ("packaging",), together=True),
    Kind("examples/cpp", ("cpp",), together=True),
    Kind("tests/guests", ("guest",)),
    Kind("tests/guests/test_demo.py"),
    Kind("tests/fuzz", ("fuzz",)),
    *(Kind(path, ("slow",)) for path in SLOW_FILES),
    Kind("tests/component"),
    Kind("tests/sdk"),
    Kind("examples"),
    Kind("tests/unit"),
)
"""In the order in which workers take them: what takes longest first, so that no worker has it alone in the end."""

NOT_FAST = ("guest", "stack", "packaging", "cpp", "fuzz", "slow")
"""The marks of what `--fast` leaves out."""
LONG = "long"
"""The mark of what only `--long` runs."""


def kind_of(path: PurePath) -> Kind:
    """Return the row of KINDS for a file of tests.

    Raises:
        pytest.UsageError: there is none.
    """
    rows = {kind.path: kind for kind in KINDS}
    if path.is_relative_to(ROOT):
        relative = path.relative_to(ROOT)
        for place in (relative, *relative.parents):
            if str(place) in rows:
                return rows[str(place)]
    raise pytest.UsageError(f"{path}: in no folder of KINDS in tests/selection.py, which has the marks of all tests")


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist's types are not for others
    """Hands a worker a file of tests at a time, or a folder of those that belong together."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        kind = kind_of(ROOT / path)
        return kind.path if kind.together else path


def pytest_addoption(parser: pytest.Parser) -> None:
    """Have `--fast` and `--long`."""
    group = parser.getgroup("splitvisor")
    group.addoption("--fast", action="store_true", help=f"leave out what is marked {', '.join(NOT_FAST)}")
    group.addoption("--long", action="store_true", help="more faults, hostile input and examples, and what takes minutes")


@pytest.hookimpl(tryfirst=True)  # Before the plugin that reads the timeout.
def pytest_configure(config: pytest.Config) -> None:
    """Set the amounts, before the modules of the tests are read, and the time that they need."""
    amounts.choose(long=config.option.long)
    if config.option.long and config.option.timeout is None:
        config.option.timeout = LONG_TIMEOUT_S


@pytest.hookimpl(tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return a worker for each processor when folders are tested; none for files and single tests."""
    folders = all(Path(argument).is_dir() for argument in config.args)
    return len(os.sched_getaffinity(0)) if folders and not config.option.collectonly else 0


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduling:
    """Let KINDS decide what runs in one process."""
    return Scheduling(config, log)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a test."""
    for mark in kind_of(item.path).marks:
        item.add_marker(mark)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put tests in the order of KINDS, and leave out what is not wanted."""
    items.sort(key=lambda item: KINDS.index(kind_of(item.path)))
    unwanted = (*(NOT_FAST if config.option.fast else ()), *(() if config.option.long else (LONG,)))
    left = [item for item in items if any(item.get_closest_marker(mark) for mark in unwanted)]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
