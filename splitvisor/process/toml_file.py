# SPDX-License-Identifier: GPL-2.0-or-later
"""Files in TOML that people write, with any editor: machine files, scenarios, tokens."""

from __future__ import annotations

import codecs
import tomllib
from pathlib import Path
from typing import Any

from splitvisor.errors.problem import ProblemError
from splitvisor.process.inputs import read_input

_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class TomlError(ProblemError):
    """A file is not TOML. One line: what is wrong and where, by line and column in characters, and what to do."""


def read_toml(path: Path, limit: int) -> dict[str, Any]:
    """Return what a regular file of at most limit bytes says; it may begin with a byte order mark. Raises OSError, TomlError."""
    data = read_input(path, limit)
    if data.startswith(_WIDE):
        raise TomlError("it is UTF-16 (at line 1, column 1)", "save it as UTF-8")
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise TomlError(f"byte {data[error.start]:#04x} is not UTF-8 ({_place(data, error.start)})", "save it as UTF-8") from None
    if "\0" in text:
        # Where it stands decides what the parser would call it.
        raise TomlError(f"a NUL byte ({_place(data, data.index(0))})", "save it as a text in UTF-8")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise TomlError("lists or tables are nested too deeply", "see https://toml.io") from None
    except ValueError as error:  # TOMLDecodeError, and what int() says of a number with thousands of digits.
        raise TomlError(str(error), "see https://toml.io") from error


def _place(data: bytes, index: int) -> str:
    """Return where a byte is, in the parser's words; what is before it is UTF-8."""
    before = data[:index].decode()
    return f"at line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"
