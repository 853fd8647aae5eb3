# SPDX-License-Identifier: GPL-2.0-or-later
"""The contracts of proto/ have a style, and a baseline that they do not break; what breaks it is found."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from splitvisor.devtools import contracts
from splitvisor.devtools.generate_stubs import PROTOS

MACHINE = Path("splitvisor/control/v1/machine.proto")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of proto/, frozen as it is."""
    copied = shutil.copytree(PROTOS, tmp_path / "proto")
    contracts.freeze(copied, stable=False)
    return copied


def edit(directory: Path, old: str, new: str) -> None:
    path = directory / MACHINE
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_contract_like_the_baseline_breaks_nobody(copy: Path) -> None:
    contracts.breaking(copy)


def test_a_new_field_breaks_nobody(copy: Path) -> None:
    edit(copy, "uint32 vcpus = 3;", "uint32 vcpus = 3;\n  // New.\n  bool brand_new = 1000;")
    contracts.breaking(copy)


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("uint32 vcpus = 3;", "uint32 vcpus = 1000;", 'Previously present field "3" with name "vcpus"'),
        ("uint32 vcpus = 3;", "uint64 vcpus = 3;", 'changed type from "uint32" to "uint64"'),
        ("uint32 vcpus = 3;", "uint32 cores = 3;", 'changed name from "vcpus" to "cores"'),
        ("MACHINE_STATE_PAUSED = 4;", "MACHINE_STATE_PAUSED = 400;", 'Previously present enum value "4"'),
        ("rpc PauseMachine(", "rpc HaltMachine(", 'Previously present RPC "PauseMachine"'),
    ],
)
def test_a_change_that_breaks_the_baseline_is_found(copy: Path, old: str, new: str, finding: str) -> None:
    edit(copy, old, new)
    with pytest.raises(contracts.ContractError) as found:
        contracts.breaking(copy)
    assert finding in str(found.value)
    assert str(MACHINE) in str(found.value)


def test_a_file_that_is_gone_is_found(copy: Path) -> None:
    (copy / "splitvisor/storage/v1/recording.proto").unlink()
    with pytest.raises(contracts.ContractError, match=r"recording\.proto"):
        contracts.breaking(copy)


def test_before_version_1_freezing_makes_a_break_the_baseline(copy: Path) -> None:
    edit(copy, "uint32 vcpus = 3;", "uint32 vcpus = 1000;")
    contracts.freeze(copy, stable=False)
    contracts.breaking(copy)


def test_from_version_1_on_only_what_breaks_nobody_is_frozen(copy: Path) -> None:
    before = (copy / contracts.BASELINE).read_bytes()
    edit(copy, "uint32 vcpus = 3;", "uint32 vcpus = 3;\n  // New.\n  bool brand_new = 1000;")
    contracts.freeze(copy, stable=True)
    grown = (copy / contracts.BASELINE).read_bytes()
    assert grown != before
    edit(copy, "bool brand_new = 1000;", "")
    with pytest.raises(contracts.ContractError, match="brand_new"):
        contracts.freeze(copy, stable=True)
    assert (copy / contracts.BASELINE).read_bytes() == grown


def test_a_contract_without_style_is_found(copy: Path) -> None:
    contracts.lint(copy)
    edit(copy, "uint32 vcpus = 3;", "uint32 vCPUs = 3;")
    with pytest.raises(contracts.ContractError, match="should be lower_snake_case"):
        contracts.lint(copy)


@pytest.mark.parametrize("check", [contracts.lint, contracts.breaking, contracts.freeze])
def test_a_missing_buf_is_an_error(copy: Path, check: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(copy / "python"))
    with pytest.raises(contracts.ContractError, match="no buf beside the interpreter; "):
        check(copy)
