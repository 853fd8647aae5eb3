# SPDX-License-Identifier: GPL-2.0-or-later
"""Arguments, paths and the environment are bytes, which may be no text; Python has those as lone surrogates (PEP 383).

Bytes go through wherever nothing but this process and the kernel has to do with them. What is sent to other processes is UTF-8.
"""

from __future__ import annotations


def is_text(text: str) -> bool:
    """Whether a text is one, which messages between processes can have."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def bytes_of(text: str) -> bytes:
    """Return the bytes that an argument had on the command line, in UTF-8 where it was text."""
    return text.encode(errors="surrogateescape")


def shown(text: str) -> str:
    """Return a text with every byte that was none as \\xHH, and every character that is none as \\uHHHH."""
    try:
        return bytes_of(text).decode(errors="backslashreplace")
    except UnicodeEncodeError:  # Half a character, as no command line has, but a file of a machine may.
        return text.encode(errors="backslashreplace").decode()


def explain(error: UnicodeEncodeError) -> str | None:
    """Return what is wrong when something that had to be text was not; None when it is another error."""
    if not any("\udc80" <= character <= "\udcff" for character in error.object[error.start : error.end]):
        return None
    return f"{shown(error.object)} is not UTF-8; give it in UTF-8"
