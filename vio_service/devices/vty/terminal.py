# SPDX-License-Identifier: GPL-2.0-or-later
"""What H_PUT_TERM_CHAR and H_GET_TERM_CHAR need of a device: VTYs and vty-servers are terminals to their guest."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from splitvisor.backend import Call

BLOCK_BYTES = 16
"""What one call carries: two registers."""


@runtime_checkable
class Terminal(Protocol):
    """A device that takes and gives characters, up to BLOCK_BYTES a call."""

    unit_address: int

    def put_block(self, call: Call, data: bytes) -> int:
        """Take what the guest writes; return r3: all of it is taken with H_SUCCESS, none otherwise."""

    def get_block(self) -> tuple[int, bytes]:
        """Return r3, and with H_SUCCESS what the guest reads next; nothing: there is none."""
