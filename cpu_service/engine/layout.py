# SPDX-License-Identifier: GPL-2.0-or-later
"""Where Unicorn keeps a PPC64 CPU's state, and proof that this build keeps it there.

Unicorn's API gives neither SPRs nor a way to deliver interrupts, so the engine works on the CPU's own structures. The
offsets are those of the x86-64 wheel of Unicorn 2.1.4. Nothing is trusted: locate() writes patterns through the public
API and must find them, together with four landmarks, before the engine uses a single offset.
"""

from __future__ import annotations

import ctypes
import platform
from dataclasses import dataclass
from typing import Any

import unicorn
from unicorn.ppc_const import UC_PPC_REG_0, UC_PPC_REG_CTR, UC_PPC_REG_LR, UC_PPC_REG_MSR, UC_PPC_REG_PC

SUPPORTED_VERSION = "2.1.4"
SUPPORTED_MACHINE = "x86_64"

# uc_engine
NO_EXIT_REQUEST = 2034
CPU = 440
ENGINE_POINTERS_SIZE = 1024
"""Within them are the pointers to functions of the engine's processor."""

# CPUState
INTERRUPT_REQUEST = 28
ICOUNT_DECR = 304
EXCEPTION_INDEX = 33184
CPU_CLASS = 33200
ENV = 40384

# The translator ("TCGContext")
TCG_CONTEXT = 768
"""Its address in uc_engine."""
BLOCK_FLUSHES = 35024
"""How often it has dropped all blocks."""

# CPUClass
DO_INTERRUPT = 16
EXEC_INTERRUPT = 144
"""The function that delivers interrupts."""
DECREMENTER_BITS = 304
"""Of the large decrementer; with 32 there is none, and reads are not sign-extended."""
HANDLE_MMU_FAULT = 328
"""The function that fills the TLB, of PowerPCCPUClass."""

# CPUPPCState ("env")
FAST_TLBS = -176
"""CPUTLBDescFast of each MMU mode, which precede env: the mask of the mode's table, and the table."""
FAST_TLB_SIZE = 16
FAST_TLB_MASK = 255 << 6
"""Of a fresh engine: 256 entries of 64 bytes."""
MMU_MODES = 10
TLB_DESCRIPTION_SIZE = 696
"""CPUTLBDesc of each MMU mode, which precede the fast TLBs. Starts with address and mask of the region of large pages."""
TLB_DESCRIPTIONS = FAST_TLBS - TLB_DESCRIPTION_SIZE * MMU_MODES
NO_LARGE_PAGE = (1 << 64) - 1
GPR = 0
MSR = 640
NIP = 680
SLB = 704
SLB_ENTRY_WORDS = 3
"""ESID, VSID, and a pointer to the segment's page sizes."""
SLB_ENTRIES = 64
SLB_PAGE_SIZE = 0x130
"""Bits of a VSID that tell its page size."""
SPR = 2840
SPR_CALLBACKS = 11032
SPR_CALLBACK_SIZE = 64
SPR_CALLBACK_NAME = 48
AFTER_CALLBACKS = SPR_CALLBACKS + 1024 * SPR_CALLBACK_SIZE
READ_SLOTS = (0, 16, 32)
"""User, supervisor and hypervisor read callbacks of one SPR; the write callback follows each."""
WRITE_SLOTS = (8, 24, 40)
FPSCR = 77648
TB_ENV = 77656
MSR_MASK = 77680
MMU_MODEL = 77688
INSTRUCTION_FLAGS = 77712
INSTRUCTION_FLAGS_2 = 77720
"""Which instructions the CPU has."""
ERROR_CODE = 77728
PENDING_INTERRUPTS = 77732
EXCP_VECTORS = 77752
EXCP_VECTORS_COUNT = 96
"""Exception numbers below it can come from a guest without hypervisor mode."""
HAS_HV_MODE = 78609
ENV_SIZE = 80032
OPCODES = ENV_SIZE + 48
"""The decoder's first table, of 64 pointers."""
GUEST_STATE = ((0, SLB), (SPR, 8 * 1024), (AFTER_CALLBACKS, TB_ENV - AFTER_CALLBACKS))
"""(offset, length) of what a guest's program can change beside the SLB: registers, SPRs, vector and floating point. All else is
the CPU model's, this process', or follows from MSR."""

# ppc_tb_t, which the wheel leaves out (tb_env is NULL) and the engine supplies
TB_ENV_SIZE = 96
TB_ENV_FREQUENCY = 24
TB_ENV_DECR_FREQUENCY = 40
TB_ENV_DECR_TIMER = 48
TB_ENV_HDECR_NEXT = 56
TB_ENV_PURR_OFFSET = 72
TB_ENV_FLAGS = 88

SPR_DSISR = 18
SPR_DAR = 19
SPR_DECR = 22
SPR_SDR1 = 25
SPR_SRR0 = 26
SPR_SRR1 = 27
SPR_TB = 268
SPR_SPRG0 = 272
SPR_PVR = 0x11F
SPR_FSCR = 0x99
SPR_HDECR = 310
SPR_PURR = 0x135
SPR_LPCR = 0x13E
SPR_PIR = 0x3FF

LAYOUT = f"unicorn {SUPPORTED_VERSION} {SUPPORTED_MACHINE}"
"""What a saved block fits."""

_POWER10_PVR_FAMILY = 0x0080
_POWER10_DECREMENTER_BITS = 56


class UnsupportedEngineError(Exception):
    """This build of Unicorn is not the one whose insides the engine knows."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"this Unicorn build is not supported: expected {SUPPORTED_VERSION} on {SUPPORTED_MACHINE}, {found}; "
            "install the locked dependencies"
        )


@dataclass(frozen=True)
class EngineAddresses:
    """Host addresses of the structures of one engine."""

    handle: int
    """uc_engine."""
    cpu: int
    """CPUState."""
    env: int
    """CPUPPCState."""


def locate(uc: Any) -> EngineAddresses:
    """Find a fresh engine's structures and check the landmarks; leaves its registers zero.

    Raises UnsupportedEngineError when anything differs from the build that the offsets were taken from.
    """
    if unicorn.__version__ != SUPPORTED_VERSION or platform.machine() != SUPPORTED_MACHINE:
        raise UnsupportedEngineError(f"found {unicorn.__version__} on {platform.machine()}")
    handle = uc._uch.value
    cpu = _u64(handle + CPU)
    env = cpu + ENV
    if not mapped(env, ENV_SIZE):
        raise UnsupportedEngineError("its CPU state is not where it should be")
    _check_registers(uc, env)
    for what, found, expected in (
        ("the system call vector", _u64(env + EXCP_VECTORS + 8 * 8), 0xC00),
        ("the data storage vector", _u64(env + EXCP_VECTORS + 2 * 8), 0x300),
        ("the CPU model", _u64(env + SPR + 8 * SPR_PVR) >> 16, _POWER10_PVR_FAMILY),
        ("the name of the PURR", _text(_u64(env + _callback(SPR_PURR) + SPR_CALLBACK_NAME)), b"PURR"),
        ("the name of the decrementer", _text(_u64(env + _callback(SPR_DECR) + SPR_CALLBACK_NAME)), b"DECR"),
        ("the time base structure", _u64(env + TB_ENV), 0),
        (
            "the regions of large pages",
            {_u64(env + TLB_DESCRIPTIONS + TLB_DESCRIPTION_SIZE * mode + word) for mode in range(MMU_MODES) for word in (0, 8)},
            {NO_LARGE_PAGE},
        ),
        ("the TLBs' masks", {_u64(env + FAST_TLBS + FAST_TLB_SIZE * mode) for mode in range(MMU_MODES)}, {FAST_TLB_MASK}),
        ("the decrementer's width", _decrementer_bits(cpu), _POWER10_DECREMENTER_BITS),
    ):
        if found != expected:
            raise UnsupportedEngineError(f"{what} is {found!r} and not {expected!r}")
    return EngineAddresses(handle, cpu, env)


def _check_registers(uc: Any, env: int) -> None:
    """Write every register that the API and the engine share; find it, then clear it."""
    for number in range(32):
        uc.reg_write(UC_PPC_REG_0 + number, 0x1122_3344_5566_7700 + number)
    uc.reg_write(UC_PPC_REG_PC, 0x0000_1234_5678_9ABC)
    found = list((ctypes.c_uint64 * 32).from_address(env + GPR))
    if found != [0x1122_3344_5566_7700 + number for number in range(32)] or _u64(env + NIP) != 0x0000_1234_5678_9ABC:
        raise UnsupportedEngineError("its registers are not where they should be")
    msr = uc.reg_read(UC_PPC_REG_MSR)
    if _u64(env + MSR) != msr:
        raise UnsupportedEngineError("its MSR is not where it should be")
    for number in (*range(UC_PPC_REG_0, UC_PPC_REG_0 + 32), UC_PPC_REG_PC, UC_PPC_REG_LR, UC_PPC_REG_CTR):
        uc.reg_write(number, 0)


def pointer_to(handle: int, function: int) -> int:
    """Return where an engine keeps the address of a function. Raises UnsupportedEngineError when it does not do so once."""
    words = (ctypes.c_uint64 * (ENGINE_POINTERS_SIZE // 8)).from_address(handle)
    places = [handle + 8 * index for index, word in enumerate(words) if word == function]
    if len(places) != 1:
        raise UnsupportedEngineError(f"it has the address of a function {len(places)} times")
    return places[0]


def flush_count(handle: int) -> int:
    """Return where an engine counts how often it has dropped all blocks; 32 bits. Raises UnsupportedEngineError."""
    address = _u64(handle + TCG_CONTEXT) + BLOCK_FLUSHES
    if not mapped(address, 4):
        raise UnsupportedEngineError("its translator is not where it should be")
    return address


def _callback(spr: int) -> int:
    return SPR_CALLBACKS + SPR_CALLBACK_SIZE * spr


def _decrementer_bits(cpu: int) -> int:
    address = _u64(cpu + CPU_CLASS) + DECREMENTER_BITS
    return ctypes.c_uint32.from_address(address).value if mapped(address, 4) else 0


def _u64(address: int) -> int:
    return ctypes.c_uint64.from_address(address).value


def _text(address: int) -> bytes:
    return ctypes.string_at(address, 8).partition(b"\0")[0] if mapped(address, 8) else b""


def mapped(address: int, size: int) -> bool:
    """Whether this process may read the range: a wrong offset must end in an error, not in a segmentation fault."""
    with open("/proc/self/maps", encoding="ascii") as maps:
        for line in maps:
            bounds, permissions, *_ = line.split()
            low, _, high = bounds.partition("-")
            if int(low, 16) <= address < int(high, 16):
                return permissions.startswith("r") and address + size <= int(high, 16)
    return False
