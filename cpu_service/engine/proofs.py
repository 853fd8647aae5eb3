# SPDX-License-Identifier: GPL-2.0-or-later
"""What each new engine has to show before its guest runs: that all that was changed in Unicorn does what it should.

docs/engine.md lists the proofs.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from cpu_service.engine import code_tracking, exit_check, instructions, layout, page_walk, replacements
from cpu_service.engine.fast_path import UNLIMITED, FastPath
from cpu_service.engine.state import CpuState

_PROOF_S = 10.0
"""A thousand times what the proofs of an engine take: a host that is busy delays them."""
_PROOF_TRANSLATIONS = 2000
"""Many times the blocks that their programs have."""
_STOP_AGAIN_S = 0.01
PROGRAM_VECTOR = 0x700
"""Where an instruction that there is not leads."""
SC_1 = (0x4400_0022).to_bytes(4, "big")


class Engine(Protocol):
    """What the proofs use of an engine; cpu_service.engine.engine has it."""

    fast_path: FastPath
    state: CpuState
    table: memoryview
    """The room of the hash page table."""

    def reset(self) -> None:
        """Power-on state."""

    def stop(self) -> None:
        """Make run() return."""

    def run(self, hints: int) -> None:
        """Execute until stop()."""

    def watch(self, page: int | None) -> None:
        """Let run() return after each block that stores into a page of RAM."""

    def try_out(self, program: Mapping[int, bytes], registers: Mapping[int, int]) -> None:
        """Run a program, by address; state has what came out."""

    def trying_out(self, program: Mapping[int, bytes], registers: Mapping[int, int]) -> AbstractContextManager[None]:
        """The same, for a program that may have stopped before its end."""


def prove(engine: Engine) -> None:
    """Let the guest's CPU show that all that was changed does what it should. Raises UnsupportedEngineError, in time.

    An engine on which the changes have no effect may translate one block for ever, or execute one: the native part counts
    translations, and a thread stops what runs too long.
    """
    over, late = threading.Event(), threading.Event()

    def watch() -> None:
        if over.wait(_PROOF_S):
            return
        late.set()
        engine.stop()
        while not over.wait(_STOP_AGAIN_S):  # A stop just before run() is missed.
            engine.stop()

    watchdog = threading.Thread(target=watch, name="proofs-of-an-engine", daemon=True)
    watchdog.start()
    engine.fast_path.translations_left = _PROOF_TRANSLATIONS
    try:
        _prove_that_flushes_are_counted(engine)
        _prove_that_changed_code_runs(engine)
        _prove_that_stops_are_exact(engine)
        _prove_that_pages_are_found(engine)
        _prove_instructions(engine)
    except layout.UnsupportedEngineError as error:
        if late.is_set():
            raise layout.UnsupportedEngineError(f"what a start tries out does not end within {_PROOF_S:g} s") from error
        raise
    finally:
        over.set()
        watchdog.join()
    engine.fast_path.translations_left = UNLIMITED
    if missing := replacements.not_called(engine.fast_path.called):
        raise layout.UnsupportedEngineError(f"it does not call {', '.join(missing)} through the slot")


def _prove_that_flushes_are_counted(engine: Engine) -> None:
    """Drop all blocks: the cache of blocks would hold them for ever."""
    count = ctypes.c_uint32.from_address(engine.fast_path.flushes)
    before = count.value
    engine.reset()
    if count.value != (before + 1) % (1 << 32):
        raise layout.UnsupportedEngineError("it does not count how often it drops its blocks")


def _prove_that_changed_code_runs(engine: Engine) -> None:
    """Let the CPU rewrite two functions of a page that it has called: stores that it misses would break a guest at random."""
    engine.try_out(code_tracking.PROGRAM, code_tracking.REGISTERS)
    if not code_tracking.is_right(engine.state.gpr):
        raise layout.UnsupportedEngineError("it goes on to run code that a guest has changed")
    engine.reset()


def _prove_that_stops_are_exact(engine: Engine) -> None:
    """Stop a loop that does not leave translated code, and let it go on: a guest that cannot be stopped would never end."""
    engine.watch(exit_check.WATCHED)
    try:
        with engine.trying_out(exit_check.PROGRAM, exit_check.REGISTERS):
            if not exit_check.has_stopped(engine.state.gpr, engine.state.nip.value):
                raise layout.UnsupportedEngineError("it does not stop between two blocks when it is asked to")
            engine.run(1)
            if not exit_check.has_gone_on(engine.state.gpr):
                raise layout.UnsupportedEngineError("it does not go on where it was stopped")
    finally:
        engine.watch(None)
    engine.reset()


def _prove_that_pages_are_found(engine: Engine) -> None:
    """Let the CPU load through an entry of the page table, which is looked up by the native part, and then by Unicorn."""
    table, place = engine.table, page_walk.place(len(engine.table))
    entry = b"".join(word.to_bytes(8, "big") for word in page_walk.ENTRY)
    kept, walks = bytes(table[place : place + len(entry)]), engine.fast_path.walks
    table[place : place + len(entry)] = entry
    try:
        for own in (1, 0):
            engine.fast_path.own_walk = own
            engine.try_out(page_walk.PROGRAM, page_walk.REGISTERS)
            if not page_walk.is_right(engine.state.gpr) or engine.fast_path.walks == walks:
                raise layout.UnsupportedEngineError("it does not find pages where the page table has them")
    finally:
        engine.fast_path.own_walk = 1
        table[place : place + len(entry)] = kept
    engine.reset()


def _prove_instructions(engine: Engine) -> None:
    """Let instructions.py see some executed, once in a process."""
    if instructions.proved():
        return

    def execute(program: bytes, registers: Mapping[int, int]) -> bool:
        engine.try_out({PROGRAM_VECTOR: SC_1, code_tracking.SCRATCH: program + SC_1}, registers)
        return engine.state.nip.value == code_tracking.SCRATCH + len(program) + len(SC_1)

    instructions.prove(execute, engine.state.gpr)
    engine.reset()
