# SPDX-License-Identifier: GPL-2.0-or-later
"""Mode pages: what a logical unit is set to, and what of it an initiator may change (SPC-4 7.5)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

ERROR_RECOVERY = 0x01
CACHING = 0x08
CONTROL = 0x0A
INFORMATIONAL_EXCEPTIONS = 0x1C
CD_CAPABILITIES = 0x2A
ALL_PAGES = 0x3F


class PageControl(IntEnum):
    """Which values of a page MODE SENSE is to return."""

    CURRENT = 0
    CHANGEABLE = 1
    DEFAULT = 2
    SAVED = 3


@dataclass(frozen=True)
class ModePage:
    """A page: its values at power-on, and the bits that MODE SELECT may change. Both without the two bytes of header."""

    code: int
    default: bytes
    changeable: bytes

    @classmethod
    def of(cls, code: int, length: int, default: dict[int, int], changeable: dict[int, int] | None = None) -> ModePage:
        """Return a page from those of its bytes that are not 0, by their number in the page, header included."""

        def filled(values: dict[int, int]) -> bytes:
            return bytes(values.get(each + 2, 0) for each in range(length))

        return cls(code, filled(default), filled(changeable or {}))


def control_page(software_write_protect: bool) -> ModePage:
    """Return the control page (SPC-4 7.5.7): D_SENSE, the format of sense data, may be changed, and SWP for a kind that has it.

    The busy timeout is without limit.
    """
    return ModePage.of(CONTROL, 10, {8: 0xFF, 9: 0xFF}, {2: 0x04, 4: 0x08 if software_write_protect else 0})


class ModePages:
    """The pages of a logical unit."""

    def __init__(self, pages: Iterable[ModePage]) -> None:
        self._pages = {each.code: each for each in pages}
        self._current = {each.code: each.default for each in self._pages.values()}
        self.descriptor_sense = False
        """Whether sense data is in descriptor format: D_SENSE of the control page."""

    def codes(self) -> list[int]:
        """Return the codes of the pages, in order."""
        return sorted(self._pages)

    def values(self, code: int, control: PageControl = PageControl.CURRENT) -> bytes:
        """Return the values of a page that there is, without its header."""
        page = self._pages[code]
        if control is PageControl.CURRENT:
            return self._current[code]
        return page.changeable if control is PageControl.CHANGEABLE else page.default

    def bit(self, code: int, byte: int, mask: int) -> bool:
        """Return whether a bit of the current values is set; the byte is counted with the header. Without the page it is not."""
        values = self._current.get(code)
        return values is not None and bool(values[byte - 2] & mask)

    def wrong_byte(self, code: int, values: bytes) -> int | None:
        """Return the first byte, header included, in which values differ from the current ones where they may not."""
        changeable = self._pages[code].changeable
        if len(values) != len(changeable):
            return 1
        for number, (new, old, free) in enumerate(zip(values, self._current[code], changeable, strict=True)):
            if (new ^ old) & ~free:
                return number + 2
        return None

    def change(self, code: int, values: bytes) -> bool:
        """Set a page to values that are allowed. Returns whether anything is different now."""
        different = self._current[code] != values
        self._current[code] = values
        self._follow()
        return different

    def reset(self) -> None:
        """Be as at power-on."""
        self._current = {each.code: each.default for each in self._pages.values()}
        self._follow()

    def _follow(self) -> None:
        self.descriptor_sense = self.bit(CONTROL, 2, 0x04)
