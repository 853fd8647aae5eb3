# SPDX-License-Identifier: GPL-2.0-or-later
r"""Control sequences in what a guest writes: where a terminal is between two of them, and which of them it would answer.

A unit is what a terminal handles as a whole: a character in UTF-8, a control character, an escape sequence (ESC ... final), a
control sequence (CSI ... final), or a control string (OSC, DCS, SOS, PM, APC ... terminator). Output may be cut, begin, or give
way to a notice between two units only. The grammar is that of ECMA-48, and of DEC's VT500 where that differs: control characters
inside a sequence take effect at once and the sequence continues; CAN and SUB end it; ESC ends it and begins the next. Controls
from 0x80 on (C1) are those that UTF-8 encodes. Of the bytes 0x80 to 0x9F alone, which UTF-8 does not have, 0x9B counts as CSI;
others begin a string only if its end follows within 64 bytes: a file that a guest prints by mistake has such bytes.

A query makes a terminal type an answer. Terminals differ, so that this has what any of them answers: xterm's
control sequences, kitty's and iTerm2's extensions, DEC's reports.
"""

from __future__ import annotations

import re

CAN = b"\x18"
"""Ends an unfinished sequence without effect."""
OPEN_BYTES = 1024
"""Of an unfinished unit that are kept as they are; of a longer one its kind is."""
LOOK_BACK_BYTES = 4096
"""Before a place in the middle of a stream, to learn whether it is between two units."""

# In a sequence: controls that take effect at once, without CAN, SUB and ESC, and DEL, which has none.
_CONTROLS = rb"\x00-\x17\x19\x1c-\x1f\x7f"
_ENDS = rb"[\x18\x1a]|(?=[\x1b\x80-\xff])"
_CSI_START = rb"(?:\x1b[%b]*+\[|\xc2\x9b|\x9b)" % _CONTROLS
_CSI = rb"%b[%b\x20-\x3f]*+(?:[\x40-\x7e]|%b)" % (_CSI_START, _CONTROLS, _ENDS)
_ESCAPE = (rb"\x1b[%b]*+(?:[\x30-\x4f\x51-\x57\x59\x5a\x5c\x60-\x7e]|[\x20-\x2f][%b\x20-\x2f]*+(?:[\x30-\x7e]|%b)|%b)") % (
    _CONTROLS,
    _CONTROLS,
    _ENDS,
    _ENDS,
)
_STRING_END = rb"\x1b\\|[\x18\x1a]|\xc2\x9c|(?=\x1b[^\\])|(?=\xc2[\x80-\x9b\x9d-\x9f])"
_OSC_START = rb"(?:\x1b[%b]*+\]|\xc2\x9d)" % _CONTROLS
_OSC = rb"%b(?:[^\x07\x18\x1a\x1b\xc2]|\xc2(?=[^\x80-\x9f]))*+(?:\x07|%b)" % (_OSC_START, _STRING_END)
_LONG_START = rb"(?:\x1b[%b]*+[PX^_]|\xc2[\x90\x98\x9e\x9f])" % _CONTROLS
_LONG = rb"%b(?:[^\x18\x1a\x1b\xc2]|\xc2(?=[^\x80-\x9f]))*+(?:%b)" % (_LONG_START, _STRING_END)
_RAW_STRING = rb"[\x90\x98\x9d-\x9f][\x20-\x7e]{0,64}+"
_RAW = rb"%b(?:\x07|\x9c|\x1b\\)" % _RAW_STRING
_SEQUENCE = rb"(?:%b)" % rb"|".join((_CSI, _OSC, _LONG, _ESCAPE, _RAW))

_CHARACTER = (
    rb"\xc2[\x80-\x8f\x91-\x97\x99\x9a\x9c\xa0-\xbf]|[\xc3-\xdf][\x80-\xbf]"
    rb"|\xe0[\xa0-\xbf][\x80-\xbf]|\xed[\x80-\x9f][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}"
)
# What a later byte may complete; without it the bytes stand alone, and a terminal shows that they are no character.
_BEGUN = (
    rb"(?:[\xc2-\xf4]|\xe0[\xa0-\xbf]|\xed[\x80-\x9f]|[\xe1-\xec\xee\xef][\x80-\xbf]"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]?|[\xf1-\xf3][\x80-\xbf]{1,2}|\xf4[\x80-\x8f][\x80-\xbf]?|%b\x1b?)\Z" % _RAW_STRING
)
_STRAY = rb"(?!\xc2[\x90\x98\x9b\x9d-\x9f]|%b)[\x80-\x9a\x9c-\xff]" % _BEGUN
_TEXT = rb"[\x00-\x1a\x1c-\x7f]++|%b" % _CHARACTER

_UNITS = re.compile(rb"(?:%b|%b|%b)*+" % (_TEXT, _SEQUENCE, _STRAY), re.DOTALL)
_UNIT = re.compile(rb"[\x00-\x1a\x1c-\x7f]|%b|%b|%b" % (_CHARACTER, _SEQUENCE, _STRAY), re.DOTALL)

_SEQUENCE_START = re.compile(rb"\x1b|[\x90\x98\x9b\x9d-\x9f]|\xc2[\x90\x98\x9b\x9d-\x9f]")

_Bytes = bytes | bytearray


def units_end(data: _Bytes, start: int = 0, end: int | None = None) -> int:
    """Return where the last whole unit of data[start:end] ends; start when there is none. A unit begins at start."""
    match = _UNITS.match(data, start, len(data) if end is None else end)
    assert match is not None, "it matches nothing, too"
    return match.end()


def unit_end(data: _Bytes, start: int) -> int | None:
    """Return where the unit that begins at start ends; None when it is not whole."""
    match = _UNIT.match(data, start)
    return None if match is None else match.end()


def boundary_after(data: _Bytes, position: int) -> int:
    """Return the first place between two units that is not before position; the data's end when there is none.

    The data begins anywhere: it is known after a few characters where units end, as most sequences are short.
    """
    begun = units_end(data, 0, position)
    end = position if begun == position else unit_end(data, begun)
    return len(data) if end is None else end


def unfinished(data: bytes) -> bytes:
    """Return what is left after the last whole unit, or for more than OPEN_BYTES something shorter that goes on alike."""
    rest = data[units_end(data) :]
    if len(rest) <= OPEN_BYTES:
        return rest
    for start, stands_for in ((_OSC_START, b"\x1b]"), (_LONG_START, b"\x1b^"), (_CSI_START, b"\x1b[")):
        if re.match(start, rest):
            # What may be the first half of the terminator counts.
            return stands_for + (rest[-1:] if rest[-1:] in (b"\x1b", b"\xc2") and stands_for != b"\x1b[" else b"")
    return b"\x1b "


class Boundary:
    """Where a stream is between two units, while it arrives in pieces."""

    def __init__(self) -> None:
        self.open = b""
        """The unit that has begun and is not whole, or what stands for it; empty between two units."""

    def feed(self, data: bytes) -> int | None:
        """Take the next piece; return how many bytes after the last boundary there are, None when there is none in it."""
        whole = self.open + data
        end = units_end(whole)
        self.open = unfinished(whole[end:])
        return len(whole) - end if end else None

    def interject(self, text: bytes, *, lost: bool = False) -> bytes:
        """Return what shows a text amid the stream: an unfinished sequence ends before it and begins again after it.

        lost: the rest of the sequence will not come.
        """
        unit = self.open
        if lost:
            self.open = b""
        return (CAN if _SEQUENCE_START.match(unit) else b"") + text + self.open


# Queries.

_C = rb"[%b]*+" % _CONTROLS
_NUMBERS = rb"[%b\x30-\x3f]*+" % _CONTROLS
_ANY = rb"[%b\x20-\x3f]*+" % _CONTROLS
_CSI_QUERIES = (
    rb"(?!%b>)%bn" % (_C, _ANY),  # DSR: status, cursor, printer, keyboard, colours
    rb"(?!%b\?)%bc" % (_C, _NUMBERS),  # DA1, DA2, DA3
    rb"%bx" % _NUMBERS,  # DECREQTPARM
    rb"%b0*+(?:1%b[1345689]|2%b[01])%b(?:;%b)?t" % (_C, _C, _C, _C, _NUMBERS),  # XTWINOPS: sizes, places, titles
    rb"%b[$+]%bp" % (_NUMBERS, _C),  # DECRQM, DECSR
    rb"%b>%bq" % (_C, _NUMBERS),  # XTVERSION
    rb"(?:%b\?|%b[\x20-\x2f])%bu" % (_C, _NUMBERS, _ANY),  # kitty's keyboard; DECRQTSR, DECRQUPSS, DECRQKT
    rb"%b(?:\$%bw|\"%bv|\*%by|['#]%b\||#%bR)"
    % (_NUMBERS, _C, _C, _C, _C, _C),  # DECRQPSR, DECRQDE, DECRQCRA, DECRQLP, XTREPORT...
    rb"%b\?%b[Sm]" % (_C, _NUMBERS),  # XTSMGRAPHICS, XTQMODKEYS
    rb"%b\?(?=%b;2048|2048)%bh" % (_C, _NUMBERS.replace(b"*+", b"*"), _NUMBERS),  # reports of the size, the first one at once
)
"""What follows CSI in control sequences that some terminal answers."""
_TEXT_OSC = rb"0*+(?:[012789]|133|633|777|[lL])?;"
"""Titles, addresses and marks: a question mark in them is text."""
_OSC_QUERY = (
    rb"(?!%b)(?:0*+(?:60|61|5522)(?![0-9])|1337;(?i:Report|Request|Capab)|(?=(?:[^\x07\x18\x1a\x1b?\xc2]|\xc2(?=[^\x80-\x9f]))*+\?))"
    % _TEXT_OSC
)
_SILENT_DCS = rb"[0-9;:]*+(?:q|\||\{|\$t|=[0-9]*+s)"
"""Pictures, keys, fonts, restored state, synchronized output; all others may be answered."""
_QUERY = rb"|".join(
    (
        rb"%b(?:%b)" % (_CSI_START, rb"|".join(_CSI_QUERIES)),
        _OSC.replace(_OSC_START, _OSC_START + _OSC_QUERY),
        # What an application's string (APC) does is the terminal's own affair; kitty answers each picture.
        _LONG.replace(
            _LONG_START, rb"(?:\x1b%b(?:[X^_]|P(?!%b))|\xc2(?:[\x98\x9e\x9f]|\x90(?!%b)))" % (_C, _SILENT_DCS, _SILENT_DCS)
        ),
        _RAW.replace(
            rb"[\x90\x98\x9d-\x9f]",
            rb"(?:\x9d(?=[\x20-\x7e]{1,64}+(?:\x07|\x9c|\x1b\\))%b|\x90(?!%b)|[\x98\x9e\x9f])" % (_OSC_QUERY, _SILENT_DCS),
        ),
        rb"\x1b%bZ|(?:\xc2)?\x9a" % _C,  # DECID
    )
)
_RUN = re.compile(
    rb"(?:[\x00-\x1a\x1c-\x7f]++|(?!\xc2\x9a)(?:%b)|(?!%b)(?:%b|%b))++|(%b)" % (_CHARACTER, _QUERY, _SEQUENCE, _STRAY, _QUERY),
    re.DOTALL,
)


def without_queries(data: bytes) -> bytes:
    """Return output, whose first unit begins at its first byte, with NUL for each byte of a query.

    Terminals ignore NUL, and all positions stay what they are.
    """
    end = units_end(data)
    # What comes after the last unit may be what ends it. ENQ takes effect inside a sequence, too.
    return (_RUN.sub(_without_query, data)[:end] + data[end:]).replace(b"\x05", b"\0")


def _without_query(run: re.Match[bytes]) -> bytes:
    return run[0] if run[1] is None else bytes(len(run[1]))


class QueryFilter:
    """A stream without queries, while it arrives in pieces; a unit is passed on once it is whole."""

    def __init__(self, limit: int = 1 << 20) -> None:
        self._limit = limit
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Take the next piece; return what can be shown. A unit longer than the limit is left out."""
        whole = self._rest + data
        end = units_end(whole)
        self._rest = whole[end:]
        if len(self._rest) > self._limit:
            self._rest = unfinished(self._rest)
        return without_queries(whole)[:end]
