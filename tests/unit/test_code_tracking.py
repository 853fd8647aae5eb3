# SPDX-License-Identifier: GPL-2.0-or-later
"""Code that changes after it was translated, on the real engine: whoever stores, in whatever way, the new code runs."""

from __future__ import annotations

import ctypes
import gc
import random
from pathlib import Path

import pytest

from cpu_service.engine import code_tracking, engine, proofs, replacements
from cpu_service.engine.engine import MSR_DR, MSR_IR, MSR_LE, MSR_ME, MSR_SF
from cpu_service.engine.interpose import loaded_unicorn
from cpu_service.engine.layout import UnsupportedEngineError
from cpu_service.hypercalls.hash_page_table import MIN_SHIFT
from tests import ppc
from tests.amounts import examples

PAGE = 0x1000
REAL = MSR_SF | MSR_ME
TRANSLATED = REAL | MSR_IR | MSR_DR
VSID = 0x123
VALUE = 5  # The register in which a function returns its value.

LOOP, STUBS, CODE = 0x1000, 0x2000, 0x8_0000
"""Real addresses: the guest's loop, instructions to call, and pages for code."""
ALIAS = 0x20_0000
"""Added to CODE: where the same pages are a second time, with translation."""

STORE_BYTE, STORE_HALF, STORE_WORD, STORE_DOUBLE = (38 << 26, 44 << 26, 36 << 26, 62 << 26)
"""Of r6 to what r7 points to."""
STORES = {
    "stb": (STORE_BYTE | 6 << 21 | 7 << 16,),
    "sth": (STORE_HALF | 6 << 21 | 7 << 16,),
    "stw": (STORE_WORD | 6 << 21 | 7 << 16,),
    "std": (STORE_DOUBLE | 6 << 21 | 7 << 16,),
    "stwbrx": (31 << 26 | 6 << 21 | 7 << 11 | 662 << 1,),
    "stdbrx": (31 << 26 | 6 << 21 | 7 << 11 | 660 << 1,),
    "stwcx.": (31 << 26 | 8 << 21 | 7 << 11 | 20 << 1, 31 << 26 | 6 << 21 | 7 << 11 | 150 << 1 | 1),
    "stdcx.": (31 << 26 | 8 << 21 | 7 << 11 | 84 << 1, 31 << 26 | 6 << 21 | 7 << 11 | 214 << 1 | 1),
    "dcbz": (31 << 26 | 7 << 11 | 1014 << 1,),
    "stmw": (47 << 26 | 28 << 21 | 7 << 16,),
    "stswi": (31 << 26 | 28 << 21 | 7 << 16 | 16 << 11 | 725 << 1,),
    "stvx": (31 << 26 | 3 << 21 | 7 << 11 | 231 << 1,),
    "stxvd2x": (31 << 26 | 3 << 21 | 7 << 11 | 972 << 1,),
}


def function(value: int) -> bytes:
    return ppc.pack((ppc.li(VALUE, value), ppc.BLR))


class Guest:
    """A guest that calls what it is told to, in a state of its MSR, until it is told to end."""

    def __init__(self, msr: int) -> None:
        self.machine = ppc.BareMachine(8 << 20)
        self.translated = bool(msr & MSR_IR)
        # Addresses up to 8 MiB stand for themselves; ALIAS is the second one of the code's pages.
        for page in range(0, 0x10_0000, PAGE):
            self._enter(page, page)
        for page in range(CODE, CODE + 8 * PAGE, PAGE):
            self._enter(page + ALIAS, page)
        self._stubs: dict[tuple[int, ...], int] = {}
        self.machine.place(LOOP, ppc.li(3, 0), ppc.SC1, ppc.mtspr(ppc.SPR_CTR, 4), 0x4E80_0421, ppc.branch(-16))  # bctrl
        self.msr = msr | 1 << 25 | 1 << 23  # VMX, VSX
        engine = self.machine.engine
        engine.state.slb[0:2] = [1 << 27, VSID << 12]
        sizes = engine.learn_page_sizes()
        engine.state.slb[0:3] = [1 << 27, VSID << 12, sizes[0]]

    def _enter(self, effective: int, real: int) -> None:
        page = effective >> 12
        group = ((VSID ^ page) & (1 << MIN_SHIFT) // 128 - 1) * 128
        while self.machine.table[group + 7] & 1:
            group += 16
        high, low = (VSID << 28 | effective) >> 23 << 7 | 1, real | 0x192
        self.machine.table[group : group + 16] = high.to_bytes(8, "big") + low.to_bytes(8, "big")

    def call(self, address: int, **registers: int) -> int:
        """Call a function, with registers r6 and on; return r5."""
        gpr = self.machine.engine.state.gpr
        state = self.machine.engine.state
        asked = iter([address])

        def tell() -> None:
            target = next(asked, None)
            if target is None:
                gpr[3] = (1 << 64) - 1
                return
            gpr[4] = target
            for name, value in registers.items():
                gpr[int(name[1:])] = value

        self.machine.during = tell
        state.nip.value = LOOP
        self.machine.engine.set_msr(self.msr)
        self.machine.engine.run(1 << 30)
        return gpr[VALUE]

    def do(self, words: tuple[int, ...], **registers: int) -> None:
        """Execute instructions."""
        if words not in self._stubs:
            place = STUBS + 32 * len(self._stubs)
            self.machine.place(place, *words, ppc.BLR)
            self._stubs[words] = place
        self.call(self._stubs[words], **registers)


def aliases(guest: Guest) -> list[int]:
    """What may be added to an address of code: there is a second way to it. Real mode ignores the four highest bits."""
    return [0, ALIAS if guest.translated else 1 << 60]


@pytest.fixture(params=[REAL, TRANSLATED], ids=["real mode", "translation"])
def guest(request: pytest.FixtureRequest) -> Guest:
    return Guest(request.param)


def test_every_function_of_a_page_can_be_rewritten(guest: Guest) -> None:
    """The first store to a page with more code used to hide the second, and an alias all of them."""
    places = [CODE, CODE + 0x200, CODE + 0x800, CODE + 0xFF8]
    for way in aliases(guest):
        for place in places:
            guest.machine.ram[place : place + 8] = function(1)
        guest.machine.engine.invalidate_code(CODE, PAGE)
        guest.do(STORES["stw"], r6=0, r7=CODE + 0x900 + way)  # The way is known, and fast, before there is code.
        assert [guest.call(place) for place in places] == [1] * 4
        for place in places:
            guest.do(STORES["stw"], r6=ppc.li(VALUE, 2), r7=place + way)
        assert [guest.call(place) for place in places] == [2] * 4
        for place in places:
            guest.do(STORES["stw"], r6=ppc.li(VALUE, 3), r7=place + way)
            assert guest.call(place) == 3
        assert [guest.call(place) for place in places] == [3] * 4


@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize("offset", [0x400, 0x438, 0xFC0], ids=["aligned", "before a granule's end", "near the page's end"])
def test_every_kind_of_store_is_seen(guest: Guest, name: str, offset: int) -> None:
    """128 bytes of functions; what the store leaves of them in memory is what runs."""
    start = CODE + (offset & -128)
    for way in aliases(guest):
        guest.machine.ram[start : start + 256] = function(1) * 32
        guest.machine.engine.invalidate_code(start, 256)
        assert [guest.call(start + 8 * index) for index in range(32)] == [1] * 32
        value = ppc.li(VALUE, 2) << 32 | ppc.BLR if name.startswith("std") else ppc.li(VALUE, 2)
        registers = dict.fromkeys(("r28", "r30"), ppc.li(VALUE, 2)) | dict.fromkeys(("r29", "r31"), ppc.BLR)
        guest.do(STORES[name], r6=value, r7=CODE + offset + way, **registers)
        memory = bytes(guest.machine.ram[start : start + 256])
        changed = [index for index in range(32) if memory[8 * index : 8 * index + 8] != function(1)]
        assert changed, "the store changed no function: this test would prove nothing"
        runnable = [index for index in changed if memory[8 * index : 8 * index + 4] == ppc.pack([ppc.li(VALUE, 2)])]
        for index in range(32):
            if index in runnable or index not in changed:
                assert guest.call(start + 8 * index) == int.from_bytes(memory[8 * index + 2 : 8 * index + 4], "big")
        if not runnable:  # What is there now is no code. It must not be the old code either.
            guest.machine.place(0x700, ppc.li(VALUE, 77), *guest.machine.END)
            guest.machine.place(0xE40, ppc.li(VALUE, 77), *guest.machine.END)
            assert guest.call(start + 8 * changed[0]) != 1


@pytest.mark.parametrize("where", [0xFFC, 0x1FFE])
def test_a_store_across_two_pages_changes_both(guest: Guest, where: int) -> None:
    for place in (CODE + where & -8, (CODE + where & -8) + 8):
        guest.machine.ram[place : place + 8] = function(1)
        assert guest.call(place) == 1
    second = (CODE + where & -8) + 8
    old = bytes(guest.machine.ram[CODE + where : CODE + where + 8])
    new = bytearray(old)
    at = second - (CODE + where)
    new[at : at + 4] = ppc.pack([ppc.li(VALUE, 2)])
    guest.do(STORES["std"], r6=int.from_bytes(bytes(new), "big"), r7=CODE + where)
    assert guest.call(second) == 2


def test_a_back_ends_write_is_seen_wherever_it_is_in_the_page(guest: Guest) -> None:
    places = [CODE + 0x10, CODE + 0x7F8, CODE + PAGE, CODE + 3 * PAGE - 8]
    for value in (1, 2, 3):
        for place in places:
            guest.machine.ram[place : place + 8] = function(value)
            if value > 1:
                guest.machine.engine.invalidate_code(place, 4)
        assert [guest.call(place) for place in places] == [value] * 4
    guest.machine.ram[CODE : CODE + 3 * PAGE] = function(4) * (3 * PAGE // 8)
    guest.machine.engine.invalidate_code(CODE, 3 * PAGE)
    assert [guest.call(place) for place in places] == [4] * 4


def test_a_write_of_all_ram_is_seen() -> None:
    guest = Guest(REAL)
    guest.machine.ram[CODE : CODE + 8] = function(1)
    assert guest.call(CODE) == 1
    guest.machine.ram[CODE : CODE + 8] = function(2)
    guest.machine.engine.invalidate_code(0, len(guest.machine.ram))
    assert guest.call(CODE) == 2


def test_code_that_was_run_in_real_mode_is_changed_with_translation() -> None:
    """As a kernel does that loads another one, and firmware that starts it."""
    guest = Guest(REAL)
    for place in (CODE, CODE + 0x100):
        guest.machine.ram[place : place + 8] = function(1)
        assert guest.call(place) == 1
    real, guest.msr = guest.msr, guest.msr | MSR_IR | MSR_DR
    for place in (CODE, CODE + 0x100):
        guest.do(STORES["stw"], r6=ppc.li(VALUE, 2), r7=place + ALIAS)
        assert guest.call(place + ALIAS) == 2
    guest.msr = real
    assert [guest.call(place) for place in (CODE, CODE + 0x100)] == [2, 2]


def _executable_bytes() -> int:
    """How much memory this process may write and execute: translated code."""
    ranges = (line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines() if " rwxp " in line)
    return sum(int(end, 16) - int(start, 16) for start, end in ranges)


def record(guest: Guest, address: int) -> tuple[int, int, int]:
    """Granules with code, stores beside them, doublings: struct code_page."""
    place = guest.machine.engine.fast_path.pages + 16 * (address // PAGE)
    return (
        ctypes.c_uint64.from_address(place).value,
        ctypes.c_uint32.from_address(place + 8).value,
        ctypes.c_uint32.from_address(place + 12).value,
    )


def test_stores_beside_code_become_fast(guest: Guest) -> None:
    """Each used to take the slow path for ever. Fast ones are not seen: the counter stands still."""
    guest.machine.ram[CODE : CODE + 8] = function(1)
    store_many = (ppc.stw(6, 0, 7), ppc.addi(6, 6, -1), 0x2C26_0000, 0x4082_FFF4)  # cmpdi r6,0; bne
    for way in aliases(guest):
        assert guest.call(CODE) == 1
        assert record(guest, CODE)[0] == 1, "the first 64 bytes hold code"
        guest.do(store_many, r6=10_000, r7=CODE + 0x800 + way)
        granules, stores, doublings = record(guest, CODE)
        assert (granules, stores) == (0, 0)
        assert doublings > 0
    assert guest.call(CODE) == 1, "and the code is translated again"
    guest.do(STORES["stw"], r6=ppc.li(VALUE, 9), r7=CODE)
    assert guest.call(CODE) == 9


def test_code_that_stores_beside_itself_is_seldom_translated_again(guest: Guest) -> None:
    """A loop of two blocks that counts in memory in its own page: it must not lose them at each turn."""
    words = ppc.ld(6, 0x800, 7), ppc.addi(6, 6, 1), ppc.branch(4), ppc.std(6, 0x800, 7), ppc.bdnz(-16), ppc.BLR
    guest.machine.place(CODE, ppc.mtspr(ppc.SPR_CTR, 8), *words)
    guest.call(CODE, r7=CODE, r8=200_000)
    assert int.from_bytes(guest.machine.ram[CODE + 0x800 : CODE + 0x808], "big") == 200_000
    _, _, doublings = record(guest, CODE)
    assert 8 < doublings <= 14, "64, 128, 256 and so on: 12 times at the most in 200,000 stores"


def test_what_was_known_of_code_ends_with_a_reset(guest: Guest) -> None:
    guest.machine.ram[CODE : CODE + 8] = function(1)
    assert guest.call(CODE) == 1
    guest.machine.engine.reset()
    assert record(guest, CODE) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(3))
def test_random_stores_and_calls_agree_with_memory(guest: Guest, seed: int) -> None:
    """Functions all over four pages, changed by the guest through every way and by back ends, and called in between."""
    chance = random.Random(f"{guest.msr} {seed}")
    slots = [CODE + page * PAGE + index * 8 for page in range(4) for index in (0, 1, 7, 8, 9, 100, 255, 256, 510, 511)]
    for slot in slots:
        guest.machine.ram[slot : slot + 8] = function(0)
    for step in range(1, examples(300)):
        slot, way, value = chance.choice(slots), chance.choice(aliases(guest)), step & 0x7FFF
        match chance.randrange(8):
            case 0:
                guest.machine.ram[slot : slot + 8] = function(value)
                guest.machine.engine.invalidate_code(slot, chance.choice([4, 8]))
            case 1:
                guest.do(STORES["std"], r6=ppc.li(VALUE, value) << 32 | ppc.BLR, r7=slot + way)
            case 2:
                guest.do(STORES["sth"], r6=value, r7=slot + way + 2)
            case 3:
                guest.do(STORES["stb"], r6=value, r7=slot + way + 3)
            case 4:
                guest.do(STORES["stw"], r6=value, r7=chance.choice([CODE, CODE + PAGE]) + way + 0x600)  # Beside code.
            case _:
                expected = int.from_bytes(guest.machine.ram[slot + 2 : slot + 4], "big", signed=True)
                assert guest.call(slot + way) == expected & (1 << 64) - 1, f"step {step}: {slot + way:#x}"


def test_little_endian_code_is_tracked_too() -> None:
    guest = Guest(REAL)
    words = (ppc.li(3, -1), ppc.SC1)
    for value in (1, 2):
        code = b"".join(word.to_bytes(4, "little") for word in (ppc.li(VALUE, value), *words))
        for index in range(0, len(code), 4):
            guest.do(STORES["stw"], r6=int.from_bytes(code[index : index + 4], "big"), r7=CODE + 0x40 + index)
        guest.machine.during = lambda: None
        guest.machine.run(CODE + 0x40, msr=REAL | MSR_LE)
        assert guest.machine.gpr[VALUE] == value


def test_translated_code_has_a_bound_and_is_dropped_when_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """131,000 blocks take many times the room, in each of two passes; between them, some are changed through another address."""
    room = 1 << 20
    monkeypatch.setattr(engine, "_TRANSLATIONS_BYTES", room)
    gc.collect()  # Engines of tests before this one go now, and not in between.
    before = _executable_bytes()
    machine = ppc.BareMachine()
    assert room - PAGE <= _executable_bytes() - before <= room
    first, last = CODE, len(machine.ram) - PAGE
    blocks = (last - first) // 8
    machine.ram[first:last] = ppc.pack((ppc.addi(4, 4, 1), ppc.branch(4))) * blocks
    machine.place(last, *machine.END)
    machine.run(first)
    assert machine.hypercalls[-1][1] == blocks
    changed = range(first, last, 64 * PAGE // 8)
    for place in changed:
        words = (*ppc.li64(5, place | 1 << 60), *ppc.li64(6, ppc.addi(4, 4, 3)), ppc.stw(6, 0, 5), *machine.END)
        machine.place(0x1000, *words)
        machine.engine.invalidate_code(0x1000, 4 * len(words))
        machine.run(0x1000)
    machine.engine.state.gpr[4] = 0
    machine.run(first)
    assert machine.hypercalls[-1][1] == blocks + 2 * len(changed)


@pytest.mark.parametrize(
    ("restored", "why"),
    [
        (tuple(replacements.REPLACEMENTS), "it translates more than its programs have"),
        (("tb_gen_code_ppc64",), "goes on to run code that a guest has changed"),
        (("tb_invalidate_phys_page_fast_ppc64",), "does not stop between two blocks"),
        (("tlb_reset_dirty_by_vaddr_ppc64",), "does not call tlb_reset_dirty_by_vaddr_ppc64 through the slot"),
        (("tlb_set_page_ppc64",), "does not call tlb_set_page_ppc64 through the slot"),
        (("address_space_translate_for_iotlb_ppc64",), "does not call address_space_translate_for_iotlb_ppc64 through the slot"),
        (("tcg_gen_exit_tb_ppc64",), "it translates more than its programs have"),
    ],
    ids=lambda value: value if isinstance(value, str) else "and ".join(value) if len(value) == 1 else "all",
)
def test_an_engine_without_our_functions_is_refused_at_its_start(
    monkeypatch: pytest.MonkeyPatch, restored: tuple[str, ...], why: str
) -> None:
    """Also one that would translate its first block for ever, which no stop from outside ends."""
    install = replacements.install
    monkeypatch.setattr(replacements, "install", lambda: None)
    for name in restored:
        loaded_unicorn().restore(name)
    try:
        with pytest.raises(UnsupportedEngineError, match=why) as refused:
            ppc.BareMachine()
    finally:
        install()
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith("; install the locked dependencies")
    ppc.BareMachine()


@pytest.mark.parametrize(
    "words", [(ppc.branch(0),), (ppc.branch(4), ppc.branch(-4)), (0,)], ids=["one block", "two", "exceptions"]
)
def test_an_engine_whose_proof_does_not_end_is_refused_in_time(monkeypatch: pytest.MonkeyPatch, words: tuple[int, ...]) -> None:
    """In place of an engine that executes one of the programs wrongly, a program without an end."""
    monkeypatch.setattr(proofs, "_PROOF_S", 0.1)
    monkeypatch.setattr(code_tracking, "PROGRAM", {code_tracking.SCRATCH: ppc.pack(words)})
    with pytest.raises(UnsupportedEngineError, match=r"what a start tries out does not end within 0\.1 s"):
        ppc.BareMachine()


def test_a_store_to_a_watched_page_ends_the_run_after_it_and_others_do_not() -> None:
    machine = ppc.BareMachine()
    machine.engine.watch(0x8000)
    stores = (ppc.stw(4, 0x8FFC - 0x8000, 5), ppc.stw(4, 0, 6))
    loop = (*ppc.li64(5, 0x8000), *ppc.li64(6, 0x9000), ppc.li(4, 1), *stores, ppc.addi(4, 4, 1), ppc.branch(-12))
    machine.place(0x1000, *loop)
    machine.run(0x1000)
    for count in range(1, 200):
        assert machine.engine.take_watched_stores()
        assert not machine.engine.take_watched_stores()
        assert int.from_bytes(machine.ram[0x8FFC:0x9000], "big") == count
        machine.engine.run(1 << 30)


def test_a_watched_page_may_hold_code_and_be_written_by_another_name() -> None:
    machine = ppc.BareMachine()
    machine.engine.watch(0x8000)
    machine.place(0x8000, *machine.END)
    # Run what is there, then change it through an alias of real mode, then run it again.
    machine.run(0x8000)
    assert not machine.engine.take_watched_stores()
    alias = 1 << 60 | 0x8000
    machine.place(0x1000, *ppc.li64(5, alias), *ppc.li64(4, ppc.li(3, -7)), ppc.stw(4, 0, 5), ppc.branch(0x8000 - 0x1000 - 44))
    machine.run(0x1000)
    assert machine.engine.take_watched_stores()
    machine.engine.run(1 << 30)
    assert machine.hypercalls[-1][0] == (1 << 64) - 7
    machine.engine.watch(None)
    machine.execute(*ppc.li64(5, 0x8000), ppc.stw(4, 16, 5))
    assert not machine.engine.take_watched_stores()
