# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that executes random instructions as a hostile guest, in supervisor and in problem state.

    python -m tests.fuzz.hostile_guest SEED INSTRUCTIONS NOTE

It ends with status 0 when nothing of the hypervisor's has changed. NOTE is a file: the batch under way stands there, for whoever
finds that the process has died. batch_words() has its instructions.
"""

from __future__ import annotations

import logging
import mmap
import random
import re
import sys
import threading
from collections import Counter
from pathlib import Path

import structlog

from cpu_service.engine import layout
from cpu_service.engine.engine import (
    MSR_DR,
    MSR_IR,
    MSR_ME,
    MSR_PR,
    MSR_SF,
    PENDING_DECREMENTER,
    PENDING_EXTERNAL,
    GuestFaultError,
)
from cpu_service.hypercalls.hash_page_table import MIN_SHIFT
from tests import ppc

BATCH = 16
CODE = 0x1000
RUNAWAY_S = 0.002
"""A guest that jumps anywhere is stopped after it."""
VSID = 0x123
DOORBELL = 1 << 14

_EXTENDED_31 = (
    *(83, 144, 146, 178, 467, 339, 659, 595, 210, 242),  # MSR, SPRs, segment registers
    *(402, 434, 498, 851, 915, 979, 466, 262),  # SLB
    *(306, 274, 370, 566, 598, 854, 818, 50, 114),  # TLB, sync and the like
    *(142, 174, 206, 238, 110, 78),  # doorbells
    *(654, 686, 718, 750, 782, 814, 846, 878, 910, 942, 1006, 430, 302),  # transactions, BHRB
    *(310, 438, 30, 62, 4, 68, 326, 371, 755, 19, 146, 512, 576),  # eciwx, wait, traps, time base, CR
    *(789, 821, 853, 885, 917, 949, 981, 1013),  # loads and stores past the caches, a hypervisor's
    *(86, 54, 470, 246, 278, 982, 1014, 22, 390, 998, 966, 486, 454),  # caches
)
_EXTENDED_19 = (18, 50, 82, 146, 274, 370, 402, 434, 466, 498, 150, 16, 528, 560)
_MTSPR, _MFSPR = 467, 339
_INTERESTING_SPRS = (
    *(18, 19, 22, 25, 26, 27, 48, 153, 256, 272, 284, 304, 313, 314, 315, 318, 319, 464, 795, 806, 855, 896, 1008, 1023),
)
_MSR_BITS = tuple(1 << bit for bit in range(64))


def _word(chance: random.Random) -> int:
    operands = chance.getrandbits(15) << 11 | chance.getrandbits(1)
    match chance.randrange(10):
        case 0 | 1 | 2 | 3:
            extended = chance.choice(_EXTENDED_31)
            if extended in (_MTSPR, _MFSPR):
                spr = chance.choice(_INTERESTING_SPRS) if chance.random() < 0.5 else chance.randrange(1024)
                operands = chance.randrange(32) << 21 | (spr & 31) << 16 | spr >> 5 << 11
            return 31 << 26 | operands | extended << 1
        case 4:
            return 19 << 26 | operands | chance.choice(_EXTENDED_19) << 1
        case 5:
            return 31 << 26 | chance.getrandbits(26)
        case 6:
            return 17 << 26 | chance.choice([2, chance.getrandbits(26) & ~0x20])  # sc, but no hypercall
        case 7:
            return chance.choice([4, 19, 59, 60, 63]) << 26 | chance.getrandbits(26)
        case _:
            return chance.getrandbits(32)


def _value(chance: random.Random) -> int:
    match chance.randrange(6):
        case 0:
            return chance.getrandbits(64)
        case 1:
            return chance.choice(_MSR_BITS) | MSR_SF | MSR_ME
        case 2:
            return chance.randrange(0, 1 << 20) & ~3
        case 3:
            return sum(chance.sample(_MSR_BITS, 3))
        case 4:
            return chance.choice([0, 1, (1 << 64) - 1, 1 << 63, 1 << 27, 1 << 36])
        case _:
            return chance.getrandbits(16)


def batch_words(seed: int, batch: int) -> tuple[list[int], list[int], bool, int]:
    """Instructions, values for the 32 registers, whether in problem state, and interrupts that are pending meanwhile."""
    chance = random.Random(f"{seed} {batch}")
    pending = chance.choice([0, 0, PENDING_EXTERNAL, PENDING_DECREMENTER, DOORBELL])
    return [_word(chance) for _ in range(BATCH)], [_value(chance) for _ in range(32)], chance.random() < 0.4, pending


class HostileGuest:
    """Runs batches, each from the power-on state."""

    HYPERVISORS = (layout.SPR_LPCR, layout.SPR_PVR, layout.SPR_SDR1, layout.SPR_PIR, 304, 305, 313, 319, 464)
    """Not HDEC, whose place follows what a guest writes to DEC."""

    def __init__(self) -> None:
        self.machine = ppc.BareMachine()
        machine, self.engine = self.machine, self.machine.engine
        self.page_size = self.engine.learn_page_sizes()[0]
        self.engine.reset()
        self.kept = [self.engine.state.spr[spr] for spr in self.HYPERVISORS]
        for page in range(0, 1 << 20, 0x1000):
            group = ((VSID ^ page >> 12) & (1 << MIN_SHIFT) // 128 - 1) * 128
            words = (VSID << 28 | page) >> 23 << 7 | 1, page | 0x192
            machine.table[group : group + 16] = b"".join(word.to_bytes(8, "big") for word in words)
        self.table = bytes(machine.table)
        self.faults: Counter[str] = Counter()
        self.stopped = 0
        self._batch = 0
        self._over = threading.Event()

    def run(self, seed: int, batches: int, note: mmap.mmap) -> None:
        """Execute all batches. Raises AssertionError when one has changed what is not the guest's."""
        watch = threading.Thread(target=self._watch, daemon=True)
        watch.start()
        for batch in range(batches):
            note[:8] = batch.to_bytes(8, "little")
            self._execute(*batch_words(seed, batch))
            self._batch += 1
            spr = self.engine.state.spr
            changed = [n for n, value in zip(self.HYPERVISORS, self.kept, strict=True) if spr[n] != value]
            assert not changed, f"batch {batch} changed SPRs {changed}"
            assert not self.engine.state.msr.value >> 60 & 1, f"batch {batch} set MSR[HV]"
            assert self.machine.table[:] == self.table, f"batch {batch} wrote the page table"
        self._over.set()
        watch.join()

    def _watch(self) -> None:
        seen = -1
        while not self._over.wait(RUNAWAY_S):
            if self._batch == seen:
                self.stopped += 1
                self.engine.stop()
            seen = self._batch

    def _execute(self, words: list[int], values: list[int], user: bool, pending: int) -> None:
        machine, engine = self.machine, self.engine
        engine.reset()
        skip = ppc.mfspr(8, ppc.SPR_SRR0), ppc.addi(8, 8, 4), ppc.mtspr(ppc.SPR_SRR0, 8), ppc.mfspr(8, ppc.SPR_SPRG2), ppc.RFID
        for vector in range(0x100, 0x1000, 0x20):
            machine.place(vector, ppc.mtspr(ppc.SPR_SPRG2, 8), *skip)
        for vector in (0x500, 0x900, 0xA00, 0xC00):
            machine.place(vector, *machine.END)
        machine.place(CODE, *words, *((ppc.SC,) if user else ()), *machine.END)
        state = engine.state
        for number, value in enumerate(values):
            state.gpr[number] = value
        state.slb[0:3] = [1 << 27, VSID << 12, self.page_size]
        state.pending_interrupts.value = pending
        engine.notice_interrupts()
        machine.hypercalls.clear()
        facilities = 1 << 25 | 1 << 23 | 1 << 13  # VMX, VSX, FP
        try:
            machine.run(CODE, msr=MSR_SF | MSR_ME | facilities | (MSR_PR | MSR_IR | MSR_DR if user else 0))
        except GuestFaultError as error:
            self.faults[re.sub("0x[0-9a-f]+", "X", str(error))] += 1


def main() -> int:
    """Run as the command line says."""
    seed, instructions = int(sys.argv[1]), int(sys.argv[2])
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with Path(sys.argv[3]).open("r+b") as file, mmap.mmap(file.fileno(), 8) as note:
        guest = HostileGuest()
        guest.run(seed, instructions // BATCH, note)
    print(f"{instructions} instructions; {guest.stopped} stops; ends of the guest: {dict(guest.faults)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
