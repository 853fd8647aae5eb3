# SPDX-License-Identifier: GPL-2.0-or-later
"""The flags that name a command's certificate. They end in the environment, where splitvisor/net/tls_files.py and
child processes look.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path

from splitvisor.net.tls_files import DIRECTORY_VARIABLE, FILE_NAMES, variable

FLAGS: Mapping[str, tuple[str, str, str]] = {
    "tls": ("DIR", DIRECTORY_VARIABLE, f"directory with this command's certificate: {', '.join(FILE_NAMES.values())}"),
    "tls_cert": ("FILE", variable("cert"), "the certificate, if it is elsewhere"),
    "tls_key": ("FILE", variable("key"), "its key, if it is elsewhere"),
    "tls_ca": ("FILE", variable("ca"), "the authority's certificate, if it is elsewhere"),
}
"""Metavar, environment variable and help of each flag, by its name as a variable."""


def flag(name: str) -> str:
    """Return how a flag of FLAGS is written."""
    return "--" + name.replace("_", "-")


def add_tls_flags(parser: ArgumentParser) -> None:
    """Add the flags to a parser."""
    for name, (metavar, environment, text) in FLAGS.items():
        parser.add_argument(flag(name), dest=name, metavar=metavar, help=f"{text} (environment: {environment})")


def use_tls_flags(values: Mapping[str, object]) -> None:
    """Have what was given, by name, used by this process and its children. A flag goes before the whole environment."""
    given = {FLAGS[name][1]: Path(str(value)) for name, value in values.items() if name in FLAGS and value is not None}
    if FLAGS["tls"][1] in given:
        for _, environment, _ in FLAGS.values():
            os.environ.pop(environment, None)
    # Children may be started elsewhere.
    os.environ.update({environment: str(path.absolute()) for environment, path in given.items()})
