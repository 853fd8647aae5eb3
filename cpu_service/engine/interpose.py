# SPDX-License-Identifier: GPL-2.0-or-later
"""Replace functions of the loaded Unicorn library by name.

The library exports its internal functions and calls them through its own procedure linkage table: for each function there is
a slot in `.got.plt` that holds where the call goes, and a relocation (JUMP_SLOT) that names the function. Writing a slot
replaces the function for every caller in the library, and no instruction is changed. Slots belong to the process: all engines
in it share a replacement, and a fork takes it along. docs/decisions/010 has the reasons and the limits.
"""

from __future__ import annotations

import ctypes
import functools
import struct

import unicorn.unicorn_py3.unicorn as binding

from cpu_service.engine.layout import UnsupportedEngineError, mapped

_RTLD_DI_LINKMAP = 2
_DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_PLTRELSZ, _DT_JMPREL = 5, 6, 10, 2, 23
_DYNAMIC_ENTRY = struct.Struct("<qQ")
_RELOCATION = struct.Struct("<QQq")  # r_offset, r_info, r_addend
_SYMBOL_WORDS = 6  # st_name is the first of an Elf64_Sym's six 32-bit words.
_JUMP_SLOT = 7
_PUSH, _ENDBR64 = b"\x68", b"\xf3\x0f\x1e\xfa"


class _LinkMap(ctypes.Structure):
    """The part of struct link_map that the C library makes public."""

    _fields_ = (("l_addr", ctypes.c_size_t), ("l_name", ctypes.c_char_p), ("l_ld", ctypes.c_size_t))


class Library:
    """A loaded library that calls its own functions through slots.

    Args:
        handle: what dlopen() has returned for it.

    Raises UnsupportedEngineError when the library is not built in this way.
    """

    def __init__(self, handle: int) -> None:
        found = ctypes.POINTER(_LinkMap)()
        process = ctypes.CDLL(None)
        if process.dlinfo(ctypes.c_void_p(handle), _RTLD_DI_LINKMAP, ctypes.byref(found)):
            raise UnsupportedEngineError("the dynamic linker does not say where it has been loaded")
        self._handle = ctypes.c_void_p(handle)
        self._dlsym = process.dlsym
        self._dlsym.restype = ctypes.c_void_p
        self._dlsym.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self._base = found.contents.l_addr
        dynamic = self._dynamic(found.contents.l_ld)
        if not {_DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_PLTRELSZ, _DT_JMPREL} <= dynamic.keys():
            raise UnsupportedEngineError("it does not call its functions through a procedure linkage table")
        self._names = ctypes.string_at(self._pointer(dynamic[_DT_STRTAB]), dynamic[_DT_STRSZ])
        self._slots = self._read_slots(
            self._pointer(dynamic[_DT_SYMTAB]), self._pointer(dynamic[_DT_JMPREL]), dynamic[_DT_PLTRELSZ] // _RELOCATION.size
        )
        self._replaced: dict[str, int] = {}

    @staticmethod
    def _dynamic(address: int) -> dict[int, int]:
        entries: dict[int, int] = {}
        while True:
            tag, value = _DYNAMIC_ENTRY.unpack(ctypes.string_at(address, _DYNAMIC_ENTRY.size))
            if not tag:
                return entries
            entries[tag] = value
            address += _DYNAMIC_ENTRY.size

    def _pointer(self, value: int) -> int:
        """Some dynamic linkers relocate the addresses in the dynamic section, others leave them as they are in the file."""
        return value if value >= self._base else value + self._base

    def _read_slots(self, symbols: int, relocations: int, count: int) -> dict[int, tuple[int, int]]:
        """Address of each slot and position of its relocation, by the function name's offset in the string table."""
        table = _RELOCATION.iter_unpack(ctypes.string_at(relocations, count * _RELOCATION.size))
        name_of = ctypes.cast(symbols, ctypes.POINTER(ctypes.c_uint32))
        return {
            name_of[_SYMBOL_WORDS * (info >> 32)]: (self._base + offset, position)
            for position, (offset, info, _) in enumerate(table)
            if info & 0xFFFF_FFFF == _JUMP_SLOT
        }

    def address(self, name: str) -> int:
        """Return the address of an exported function: the library's own, whether it is replaced or not.

        Raises UnsupportedEngineError when there is none of that name.
        """
        address: int | None = self._dlsym(self._handle, name.encode())
        if address is None:
            raise UnsupportedEngineError(f"it has no function {name}")
        return address

    def replace(self, name: str, replacement: int) -> int:
        """Let every call of a function within the library go elsewhere, from now on and in the whole process.

        Doing it twice is doing it once. The replacement must not call the function through the library's slots: it calls
        what this method returns.

        Args:
            name: of the function.
            replacement: address of a function with the same signature, which stays where it is for the process's life.

        Returns the address of the library's own function.

        Raises UnsupportedEngineError when the function has no slot, or the slot does not lead to it; ValueError when it has
        another replacement already.
        """
        original = self.address(name)
        slot = self._slot(name)
        if self._replaced.get(name, replacement) != replacement:
            raise ValueError(f"{name} has a replacement already")
        expected = self._replaced.get(name, original)
        if slot.value != replacement:
            if slot.value != expected and not self._is_lazy(name, slot.value):
                raise UnsupportedEngineError(f"calls of {name} go to {slot.value:#x} and not to {expected:#x}")
            slot.value = replacement
        self._replaced[name] = replacement
        return original

    def restore(self, name: str) -> None:
        """Let calls of a function go to the library's own again."""
        self._slot(name).value = self.address(name)
        self._replaced.pop(name, None)

    def _slot(self, name: str) -> ctypes.c_uint64:
        return ctypes.c_uint64.from_address(self._find(name)[0])

    def _find(self, name: str) -> tuple[int, int]:
        """A name may be the end of a longer one in the string table, so it can stand there more than once."""
        wanted, place = name.encode() + b"\0", -1
        while (place := self._names.find(wanted, place + 1)) >= 0:
            if found := self._slots.get(place):
                return found
        raise UnsupportedEngineError(f"it does not call {name} through a slot")

    def _is_lazy(self, name: str, value: int) -> bool:
        """Whether a slot still leads to the linker, as it does before the first call: to a push of its relocation's position."""
        push = _PUSH + self._find(name)[1].to_bytes(4, "little")
        if not mapped(value, len(_ENDBR64 + push)):
            return False
        return ctypes.string_at(value, len(_ENDBR64 + push)).removeprefix(_ENDBR64).startswith(push)


@functools.cache
def loaded_unicorn() -> Library:
    """Return the Unicorn library of this process. Raises UnsupportedEngineError."""
    return Library(binding.uclib._handle)
