# SPDX-License-Identifier: GPL-2.0-or-later
"""Functions of the real Unicorn library, replaced by name."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import unicorn.unicorn_py3.unicorn as binding

from cpu_service.engine.interpose import Library, loaded_unicorn
from cpu_service.engine.layout import UnsupportedEngineError
from tests import ppc

FUNCTION = "gen_intermediate_code_ppc64"
"""Decodes a block: (CPUState *, TranslationBlock *, max_insns). A block's first word is its address."""
_Function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
RTLD_LAZY = 1


class Watched:
    """Replaces FUNCTION by one that notes the addresses and goes on to the library's own."""

    def __init__(self) -> None:
        self.addresses: list[int] = []
        self._callback = _Function(self._decode)
        self.entry = ctypes.cast(self._callback, ctypes.c_void_p).value or 0
        self.original: Callable[..., None] = lambda *_: None

    def install(self) -> None:
        self.original = _Function(loaded_unicorn().replace(FUNCTION, self.entry))

    def _decode(self, cpu: int, block: int, instructions: int) -> None:
        self.addresses.append(ctypes.c_uint64.from_address(block).value)
        self.original(cpu, block, instructions)


@pytest.fixture
def watched() -> Iterator[Watched]:
    yield Watched()
    loaded_unicorn().restore(FUNCTION)


def test_a_replacement_gets_the_librarys_own_calls_until_it_is_taken_back(watched: Watched) -> None:
    machine = ppc.BareMachine()
    machine.execute(ppc.li(4, 1))
    watched.install()
    machine.execute(ppc.li(4, 2))
    assert watched.addresses[0] == 0x1000
    assert machine.hypercalls[-1][1] == 2, "and what it does counts"
    loaded_unicorn().restore(FUNCTION)
    watched.addresses.clear()
    machine.execute(ppc.li(4, 3))
    assert (machine.hypercalls[-1][1], watched.addresses) == (3, [])


def test_replacing_twice_is_replacing_once(watched: Watched) -> None:
    machine = ppc.BareMachine()  # First: an engine runs code of its own when it is made.
    watched.install()
    watched.install()
    machine.execute(ppc.li(4, 1))
    assert watched.addresses.count(0x1000) == 1
    assert loaded_unicorn().replace(FUNCTION, watched.entry) == loaded_unicorn().address(FUNCTION)


def test_every_engine_of_the_process_has_the_replacement(watched: Watched) -> None:
    machines = [ppc.BareMachine() for _ in range(2)]
    watched.install()
    for machine in machines:
        machine.execute(ppc.li(4, 1))
    assert watched.addresses.count(0x1000) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [("gen_intermediate_cod", "it has no function gen_intermediate_cod"), ("uc_open", "it does not call uc_open through a slot")],
)
def test_what_cannot_be_replaced_is_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(UnsupportedEngineError, match=message) as raised:
        loaded_unicorn().replace(name, 0x1234)
    assert "\n" not in str(raised.value)
    assert "install the locked dependencies" in str(raised.value)


def test_the_end_of_a_longer_name_is_no_name() -> None:
    with pytest.raises(UnsupportedEngineError, match="no function intermediate_code_ppc64"):
        loaded_unicorn().replace("intermediate_code_ppc64", 0x1234)


def test_a_function_has_one_replacement(watched: Watched) -> None:
    watched.install()
    with pytest.raises(ValueError, match=f"{FUNCTION} has a replacement already"):
        loaded_unicorn().replace(FUNCTION, watched.entry + 1)
    loaded_unicorn().restore(FUNCTION)
    loaded_unicorn().replace(FUNCTION, watched.entry)


def test_a_slot_that_somebody_else_has_written_is_refused(watched: Watched) -> None:
    slot = loaded_unicorn()._slot(FUNCTION)
    slot.value += 16
    with pytest.raises(UnsupportedEngineError, match=f"calls of {FUNCTION} go to 0x"):
        watched.install()
    loaded_unicorn().restore(FUNCTION)
    watched.install()


def test_a_library_whose_calls_are_bound_at_their_first_is_understood(tmp_path: Path) -> None:
    """Python binds them all at once, but it may not be the first to load the library. A copy of the file is another library."""
    copy = shutil.copy(Path(str(binding.uclib._name)).resolve(), tmp_path)
    dlopen = ctypes.CDLL(None).dlopen
    dlopen.restype, dlopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int]
    library = Library(dlopen(str(copy).encode(), RTLD_LAZY))
    slot = library._slot(FUNCTION)
    assert slot.value != library.address(FUNCTION), "it was bound at once: this test would prove nothing"
    of_another = library._slot("tlb_flush_ppc64").value
    unbound, slot.value = slot.value, of_another
    with pytest.raises(UnsupportedEngineError, match="go to"):
        library.replace(FUNCTION, 0x1234)
    slot.value = unbound
    assert library.replace(FUNCTION, 0x1234) == library.address(FUNCTION) != loaded_unicorn().address(FUNCTION)
    assert slot.value == 0x1234


def test_a_library_without_a_procedure_linkage_table_is_refused() -> None:
    with pytest.raises(UnsupportedEngineError, match="procedure linkage table"):
        Library(ctypes.CDLL("linux-vdso.so.1")._handle)
