# SPDX-License-Identifier: GPL-2.0-or-later
"""The back end of the scripted guest (splitvisor/firmware/script_guest.S): it passes calls to the guest and receives
their results.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from splitvisor.backend import Backend, Call, Hypercall, Result, Session, Vm
from splitvisor.papr.codes import H

SCRIPT_BACKEND = "script"
H_SCRIPT_NEXT = 0xF7F0
RECORD = struct.Struct(">10Q")
"""One call: r3 to r12, before and after."""
IDLE_S = 0.1
"""Time that a guest waits for the script before it asks again: pausing or resetting a machine waits for the call's end."""


class GuestError(Exception):
    """The scripted guest cannot carry out a request; the message has the reason."""


@dataclass
class Batch:
    """Calls that the guest makes in sequence."""

    table: bytes
    """Records."""
    decrementer: int
    """Value of the decrementer before each call; 0: do not set it."""
    done: asyncio.Future[bytes]
    """The table with the results."""


class ScriptSession(Session):
    """The scripted guest of one VM."""

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm)
        self.area: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
        """Address and size in bytes of the memory that the guest reserves for the script, once it runs."""
        self._waiting: deque[Batch] = deque()
        self._added = asyncio.Event()
        self._running: Batch | None = None

    async def run(self, table: bytes, decrementer: int) -> bytes:
        """Let the guest make the calls of a table; return it with the results.

        Raises GuestError if the guest ends or restarts meanwhile.
        """
        batch = Batch(table, decrementer, asyncio.get_running_loop().create_future())
        self._waiting.append(batch)
        self._added.set()
        return await batch.done

    async def next(self, call: Call) -> Result:
        """H_SCRIPT_NEXT(area, size): finish the last table; return the next number of calls and the decrementer's value."""
        area, size = call.arguments
        if not self.area.done():
            self.area.set_result((area, size))
        if self._running is not None:
            batch, self._running = self._running, None
            if not batch.done.done():
                batch.done.set_result(await self.vm.memory.read(area, len(batch.table)))
        try:
            async with asyncio.timeout(IDLE_S):
                batch = await self._next_batch()
        except TimeoutError:
            return Result(H.BUSY)
        await self.vm.memory.write(area, batch.table)
        self._running = batch
        return Result(outputs=(len(batch.table) // RECORD.size, batch.decrementer))

    async def _next_batch(self) -> Batch:
        while True:
            while self._waiting:
                batch = self._waiting.popleft()
                if not batch.done.done():  # Else the script has given up on it.
                    return batch
            self._added.clear()
            await self._added.wait()

    async def reset(self) -> None:
        """Handle a restart of the guest: its present calls have no results."""
        if self._running is not None:
            self._fail([self._running], "the machine was reset before the call returned")
            self._running = None

    async def close(self) -> None:
        """Handle the end of the guest."""
        running = [] if self._running is None else [self._running]
        self._fail([*running, *self._waiting], "the machine ended before the call returned")

    @staticmethod
    def _fail(batches: Sequence[Batch], why: str) -> None:
        for batch in batches:
            if not batch.done.done():
                batch.done.set_exception(GuestError(why))

    calls = (Hypercall(H_SCRIPT_NEXT, next, arguments=2, section="splitvisor.testing", name="H_SCRIPT_NEXT"),)


SCRIPT = Backend(SCRIPT_BACKEND, ScriptSession)
