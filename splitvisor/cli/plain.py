# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor version` and `splitvisor protos`: they print one line, and need no library to do so."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from splitvisor import __version__


def version() -> None:
    """Print the version."""
    print(f"splitvisor {__version__}")


def protos() -> None:
    """Print the directory of the contracts (.proto files), for `protoc -I`: back ends in other languages are made from them."""
    print(proto_directory())


def proto_directory() -> Path:
    """Return where splitvisor/trap/v1/trap.proto and its kin are: in the package, or beside it in a checkout."""
    package = Path(str(resources.files("splitvisor")))
    installed = package / "proto"
    return installed if installed.is_dir() else package.parent / "proto"
