# SPDX-License-Identifier: GPL-2.0-or-later
"""The extras of this distribution, and what to say when one is wanted that is not installed.

`pip install splitvisor` brings what serves a back end. Everything else is an extra: the optional dependencies of pyproject.toml.
Here are the modules that each brings, since a module is what an import lacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec

EXTRAS: Mapping[str, Sequence[str]] = {
    "run": ("unicorn", "hpack", "pyfdt", "zstandard", "typer", "rich", "uvloop", "cryptography"),
    "gateway": ("aiohttp", "cryptography", "uvloop"),
    "metrics": ("prometheus_client",),
    "otel": ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.grpc"),
    "postgresql": ("psycopg",),
    "testing": ("pytest",),
}
"""Extras, the most common first, and the modules of each."""


class MissingExtraError(ImportError):
    """An extra is wanted that is not installed; the message names what is missing and the extra, and how to get it."""


def require(extra: str) -> None:
    """Raise MissingExtraError when a module of an extra is not installed."""
    for module in EXTRAS[extra]:
        if not _installed(module):
            raise MissingExtraError(_remedy(module, extra))


def explain(error: ImportError) -> str | None:
    """Return what a MissingExtraError would say; None when an import failed for another reason than a missing extra."""
    if isinstance(error, MissingExtraError):
        return str(error)
    for extra, modules in EXTRAS.items():
        for module in modules:
            if error.name and f"{error.name}.".startswith(f"{module}.") and not _installed(module):
                return _remedy(module, extra)
    return None


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False  # what it would be in is not there either


def _remedy(module: str, extra: str) -> str:
    return f"{module} is not installed; pip install 'splitvisor[{extra}]'"
