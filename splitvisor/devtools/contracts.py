# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps the contracts of proto/ what others build on: their style (`buf lint`), and that none of them breaks (`buf breaking`).

What others build on is a baseline, proto/baseline.binpb: an image of the contracts without their comments. `./dev check`
compares with it. Until version 1 it follows the contracts, by `./dev proto --freeze`; from then on it only grows.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from splitvisor import __version__
from splitvisor.devtools.generate_stubs import PROTOS

BASELINE = "baseline.binpb"
_STABLE = int(__version__.partition(".")[0]) >= 1


class ContractError(Exception):
    """The contracts are not as they must be, or buf is missing; the message has buf's own findings."""


def lint(directory: Path = PROTOS) -> None:
    """Check the style of the contracts in a directory. Raises ContractError."""
    _buf(directory, "lint")


def breaking(directory: Path = PROTOS) -> None:
    """Check that nobody who was built for the baseline of a directory is broken by its contracts. Raises ContractError."""
    _buf(directory, "breaking", "--against", BASELINE)


def freeze(directory: Path = PROTOS, *, stable: bool = _STABLE) -> None:
    """Make the contracts of a directory its baseline.

    Args:
        directory: has the contracts.
        stable: a version was released that promises its contracts: they must not break the baseline that is there.

    Raises ContractError.
    """
    if stable:
        breaking(directory)
    _buf(directory, "build", "--exclude-source-info", "-o", BASELINE)


def _buf(directory: Path, *arguments: str) -> None:
    buf = shutil.which("buf", path=str(Path(sys.executable).parent))
    if buf is None:
        raise ContractError("there is no buf beside the interpreter; ./dev check installs it")
    done = subprocess.run([buf, *arguments], cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ContractError((done.stdout + done.stderr).strip())


if __name__ == "__main__":
    try:
        {"lint": lint, "breaking": breaking, "freeze": freeze}[sys.argv[1]]()
    except ContractError as error:
        sys.exit(str(error))
