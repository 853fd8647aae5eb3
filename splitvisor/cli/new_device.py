# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor new-device`: the skeleton of a back end, with tests that pass."""

from __future__ import annotations

import importlib.util
import keyword
import re
from importlib import resources
from pathlib import Path
from string import Template
from typing import Annotated, NoReturn

import typer

from splitvisor.run.exit_status import ExitStatus

_NAME = re.compile(r"[a-z][a-z0-9_]{0,23}")
"""A Python module, a part of a node's name, which has 31 characters at most, and a back end's name at once."""
_FILES = {"{name}.py": "device.py", "test_{name}.py": "test_device.py", "README.md": "README.md"}
"""What is written, and the template of each file."""
_VIO_FILES = {
    "{name}.py": "vio_device.py",
    "test_{name}.py": "test_vio_device.py",
    "README.md": "vio_README.md",
    "machine.toml": "vio_machine.toml",
}
"""The same for a device of the VIO bus."""


def new_device(
    name: Annotated[str, typer.Argument(metavar="NAME", help="a-z, 0-9 and _, a letter first")],
    *,
    vio: Annotated[bool, typer.Option("--vio", help="A device of the VIO bus, with node, slot, interrupt and DMA")] = False,
    directory: Annotated[Path, typer.Option(metavar="DIRECTORY", help="Where the directory NAME is made")] = Path(),
) -> None:
    """Write the skeleton of a device: a back end of about 40 lines, its tests and a README, in a new directory NAME."""
    if not _NAME.fullmatch(name):
        _fail(f"{name!r} is not a device name; give 1 to 24 of a-z, 0-9 and _, a letter first")
    target = directory / name
    if target.exists():
        _fail(f"{target} exists already; give another name, or another --directory")
    if keyword.iskeyword(name) or name.startswith("test_") or _is_module(name):
        _fail(f"{name!r} is reserved by Python or pytest; give another name")
    words = name.split("_")
    values = {
        "name": name,
        "upper": name.upper(),
        "title": " ".join(words).capitalize(),
        "camel": "".join(word.capitalize() for word in words) + ("Device" if vio else "Session"),
    }
    try:
        target.mkdir()
    except OSError as error:
        _fail(f"{target}: {error.strerror}; give a --directory that can be written to")
    templates = resources.files("splitvisor.cli") / "templates"
    for file, template in (_VIO_FILES if vio else _FILES).items():
        text = Template(templates.joinpath(f"{template}.template").read_text("utf-8")).substitute(values)
        (target / file.format(name=name)).write_text(text, "utf-8")
    typer.echo(f"{target}: run its tests with `cd {target} && python -m pytest`; README.md has the rest")


def _is_module(name: str) -> bool:
    """Whether a module has this name; a directory that only could be one does not count."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


def _fail(text: str) -> NoReturn:
    typer.echo(f"splitvisor new-device: {text}", err=True)
    raise typer.Exit(ExitStatus.USAGE)
