# SPDX-License-Identifier: GPL-2.0-or-later
"""One Unicorn engine, made into a PAPR guest CPU.

Unicorn models a POWER10 with a hypervisor mode and no interrupts. Engine takes hypervisor mode away, gives the CPU a hash
page table outside guest RAM and a time base that reads the host's clock, delivers exceptions to the guest's vectors, and tells
its owner about hypercalls and writes to the decrementer. One vCPU is loaded at a time; a scheduler swaps them.
"""

from __future__ import annotations

import ctypes
import mmap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import structlog
import unicorn.unicorn_py3.unicorn as binding
from unicorn import UC_ARCH_PPC, UC_MODE_BIG_ENDIAN, UC_MODE_PPC64, UC_PROT_ALL, UC_PROT_READ, UC_PROT_WRITE, Uc
from unicorn.ppc_const import UC_PPC_REG_MSR
from unicorn.unicorn_const import (
    UC_CTL_IO_WRITE,
    UC_CTL_TB_FLUSH,
    UC_CTL_TLB_FLUSH,
    UC_HOOK_INTR,
)

from cpu_service.engine import code_tracking, instructions, layout, native, proofs, replacements
from cpu_service.engine.code_tracking import CodePages
from cpu_service.engine.fast_path import (
    ABORTED,
    BLOCK_CACHE_ENTRIES,
    DECREMENTER_WRITTEN,
    FOREVER_NS,
    HOOK,
    NO_PAGE,
    RUN,
    UNLIMITED,
    FastPath,
)
from cpu_service.engine.interpose import loaded_unicorn
from cpu_service.engine.special_registers import Callbacks, Clock
from cpu_service.engine.state import CpuState, SavedState
from splitvisor.papr.hcall import Hcall
from splitvisor.papr.processor import PVR_POWER8

log = structlog.get_logger()

HASH_TABLE_BASE = 1 << 36
"""Physical address of the hash page table: above the largest RAM, so that no guest page can name it by accident."""
PAGE_TABLE_ENTRY_BYTES = 16
MSR_SF, MSR_ME = 1 << 63, 1 << 12
MSR_PR, MSR_IR, MSR_DR, MSR_LE = 1 << 14, 1 << 5, 1 << 4, 1
PENDING_EXTERNAL, PENDING_DECREMENTER = 1 << 3, 1 << 8

_MSR_HV = 1 << 60
_MMU_MODES_IN_USE = (0, 1, 3)
"""Problem state and supervisor with translation, and supervisor without."""
_LPCR_GUESTS = 1 << 25 | 3 << 23
"""What H_SET_MODE changes: ILE and AIL."""
_RESERVED_AIL = 1  # H_SET_MODE refuses it; an interrupt with it would abort the process.
_LPCR_LPES = 0xC  # Without it an external interrupt wants hypervisor mode and aborts the process.
_MMU_HASH_2_07 = 0x0001_0004
_EXCEPTION_SYSTEM_CALL, _EXCEPTION_SYSTEM_RESET = 8, 64
_INTERRUPT_HARD = 2
_DECREMENTER_BITS = 32
_MACHINE_CHECK_VECTOR = 0x200
_MACHINE_CHECKS_LOGGED = 8
"""From one reset to the next."""
_SLBMTE_R4_R3 = (0x7C80_1B24).to_bytes(4, "big")
_SLB_VALID = 1 << 27
_SCRATCH = code_tracking.SCRATCH
"""Where instructions of our own are for a moment."""

_TRANSLATIONS_BYTES = 256 << 20
"""What translated code may take until the engine drops all of it; Unicorn's own is 1 GiB. A boot of Debian needs some 80 MB."""

_EXCEPTION_EMBEDDED_DOORBELL, _DOORBELL_VECTOR = 36, 0xA00
_CLASS_FUNCTIONS = (
    (layout.HANDLE_MMU_FAULT, "ppc64_v3_handle_mmu_fault", "mmu_fault"),
    (layout.EXEC_INTERRUPT, "ppc_cpu_exec_interrupt_ppc64", "exec_interrupt"),
)
"""Offset in the CPU's class, Unicorn's function, and ours."""

_HandlerType = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p)


class GuestFaultError(Exception):
    """The guest did what no exception vector covers, such as an access to an address with nothing behind it."""


class Engine:
    """The CPU of one machine.

    Args:
        ram: guest RAM, mapped writable; its length is the size of RAM.
        table: room for the hash page table, mapped writable; its length is a power of two, and the table's until use_table().
    """

    def __init__(self, ram: mmap.mmap, table: mmap.mmap) -> None:
        self._uc = cast(Any, Uc(UC_ARCH_PPC, UC_MODE_PPC64 | UC_MODE_BIG_ENDIAN))
        self._uc.ctl_set_tcg_buffer_size(_TRANSLATIONS_BYTES)
        self._buffers = tuple((ctypes.c_ubyte * len(area)).from_buffer(area) for area in (ram, table))
        self._uc.mem_map_ptr(0, len(ram), UC_PROT_ALL, ctypes.addressof(self._buffers[0]))
        self._uc.mem_map_ptr(HASH_TABLE_BASE, len(table), UC_PROT_READ | UC_PROT_WRITE, ctypes.addressof(self._buffers[1]))
        self._ram_size = len(ram)
        where = layout.locate(self._uc)
        self._handle = ctypes.c_void_p(where.handle)
        self._cpu = ctypes.c_void_p(where.cpu)
        self.state = CpuState(where.env)
        """The loaded vCPU."""
        self.on_hypercall: Callable[[], None] = _unconnected
        """Called for each `sc 1`, with the arguments in state.gpr; the guest goes on when it returns."""
        self.on_decrementer: Callable[[int], None] = _unconnected_value
        """Called when the guest writes the decrementer, with the 32-bit value, unless it is due after fast_path.timer_ns: the
        loaded vCPU's DEC and HDEC registers have the host's monotonic time at which it is 0 then."""
        self._interrupt_request = ctypes.c_uint32.from_address(where.cpu + layout.INTERRUPT_REQUEST)
        self._exception_index = ctypes.c_int32.from_address(where.cpu + layout.EXCEPTION_INDEX)
        self._exit_flag = ctypes.c_uint64.from_address(where.cpu + layout.ICOUNT_DECR).value + 2
        self._failure: BaseException | None = None
        self._bind(where)
        self._become_papr_cpu(where.handle, where.env, len(table))
        instructions.replace_helpers()
        instructions.become_power8(where.env)
        self._pristine = SavedState()
        self._pristine.copy_from(self.state)
        self._code_pages = CodePages(len(ram))
        self.table = memoryview(self._buffers[1]).cast("B")
        """The room of the hash page table."""
        self._hook(where)
        self._replace_functions(where)
        self.reset()
        try:
            proofs.prove(self)
        except GuestFaultError as error:
            raise layout.UnsupportedEngineError(f"it does not execute what a start tries out: {error}") from error

    def _bind(self, where: layout.EngineAddresses) -> None:
        """Prepare the C calls. Short ones keep the GIL: giving it away costs more than they do."""
        short = ctypes.PyDLL(binding.uclib._name)
        self._emu_start = short.uc_emu_start
        self._emu_stop = short.uc_emu_stop
        self._emu_stop.argtypes = [ctypes.c_void_p]
        self._ctl = short.uc_ctl
        self._ctl.argtypes = [ctypes.c_void_p, ctypes.c_int]
        self._tlb_flush = short.tlb_flush_ppc64
        self._tlb_flush.argtypes = [ctypes.c_void_p]
        self._tlb_flush_page = short.tlb_flush_page_by_mmuidx_ppc64
        cpu_class = ctypes.c_uint64.from_address(where.cpu + layout.CPU_CLASS).value
        ctypes.c_uint32.from_address(cpu_class + layout.DECREMENTER_BITS).value = _DECREMENTER_BITS
        do_interrupt = ctypes.c_uint64.from_address(cpu_class + layout.DO_INTERRUPT).value
        self._code_written = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)(
            native.address("code_written")
        )
        self._do_interrupt = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(do_interrupt)

    def _become_papr_cpu(self, handle: int, env: int, table_size: int) -> None:
        """POWER8 below a hypervisor, whose registers and instructions therefore trap; the page table comes from SDR1."""
        ctypes.c_uint8.from_address(handle + layout.NO_EXIT_REQUEST).value = 1
        self._uc.ctl_exits_enabled(True)
        ctypes.c_uint64.from_address(env + layout.MSR_MASK).value &= ~_MSR_HV
        ctypes.c_uint8.from_address(env + layout.HAS_HV_MODE).value = 1
        ctypes.c_uint32.from_address(env + layout.MMU_MODEL).value = _MMU_HASH_2_07
        ctypes.c_uint64.from_address(env + layout.EXCP_VECTORS + 8 * _EXCEPTION_EMBEDDED_DOORBELL).value = _DOORBELL_VECTOR
        self.state.msr.value &= ~_MSR_HV
        spr = self.state.spr
        spr[layout.SPR_PVR] = PVR_POWER8
        spr[layout.SPR_LPCR] = _LPCR_LPES
        spr[layout.SPR_SDR1] = sdr1(table_size)
        self._clock = Clock(env)
        self.timebase_offset = self._clock.timebase_offset
        self.decrementer_zero_ns = self._clock.decrementer_zero_ns
        self._registers = Callbacks(env)
        self._registers.give_time()
        self._registers.become_power8()
        # The engine looks through every mode's TLB whenever it translates code; one entry is the least that one can have.
        for mode in {*range(layout.MMU_MODES)} - {*_MMU_MODES_IN_USE}:
            ctypes.c_uint64.from_address(env + layout.FAST_TLBS + layout.FAST_TLB_SIZE * mode).value = 0

    def _hook(self, where: layout.EngineAddresses) -> None:
        """Install the hooks with bare C callbacks: the binding's wrappers cost as much as a hypercall."""
        add = ctypes.CDLL(binding.uclib._name).uc_hook_add
        pointer, number64 = ctypes.c_void_p, ctypes.c_uint64
        add.argtypes = [pointer, pointer, ctypes.c_int, pointer, pointer, number64, number64]
        self._blocks = (ctypes.c_uint64 * BLOCK_CACHE_ENTRIES)()
        self.fast_path = FastPath(
            gpr=self.state.address + layout.GPR,
            msr=ctypes.addressof(self.state.msr),
            nip=ctypes.addressof(self.state.nip),
            error_code=ctypes.addressof(self.state.error_code),
            exception_index=ctypes.addressof(self._exception_index),
            cpu=self._cpu.value,
            do_interrupt=ctypes.cast(self._do_interrupt, ctypes.c_void_p).value,
            tlb_flush=ctypes.cast(self._tlb_flush, ctypes.c_void_p).value,
            tlb_flush_page=ctypes.cast(self._tlb_flush_page, ctypes.c_void_p).value,
            slb=self.state.address + layout.SLB,
            tlb_descriptions=self.state.address + layout.TLB_DESCRIPTIONS,
            tlb_description_size=layout.TLB_DESCRIPTION_SIZE,
            modes=sum(1 << mode for mode in _MMU_MODES_IN_USE),
            emu_start=ctypes.cast(self._emu_start, ctypes.c_void_p).value,
            uc=self._handle.value,
            table=ctypes.addressof(self._buffers[1]),
            entries=len(self._buffers[1]) // PAGE_TABLE_ENTRY_BYTES,
            ram_bytes=self._ram_size,
            env=self.state.address,
            spr=self.state.address + layout.SPR,
            ram=ctypes.addressof(self._buffers[0]),
            pages=self._code_pages.address,
            fast_tlbs=self.state.address + layout.FAST_TLBS,
            interrupt_request=ctypes.addressof(self._interrupt_request),
            pending=ctypes.addressof(self.state.pending_interrupts),
            exit_flag=self._exit_flag,
            watched_page=NO_PAGE,
            own_walk=1,
            translations_left=UNLIMITED,
            blocks=ctypes.addressof(self._blocks),
            flushes=layout.flush_count(where.handle),
            timer_ns=FOREVER_NS,
        )
        """What the native part of the hook works on."""
        self._callback = _HandlerType(self._make_handler())
        self.fast_path.slow = ctypes.cast(self._callback, ctypes.c_void_p).value
        self._run = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(native.address(RUN))
        self._fast_path_address = ctypes.addressof(self.fast_path)
        self._hook_number = ctypes.c_size_t()
        add(self._handle, ctypes.byref(self._hook_number), UC_HOOK_INTR, native.address(HOOK), ctypes.byref(self.fast_path), 1, 0)

    def _replace_functions(self, where: layout.EngineAddresses) -> None:
        """Put our own functions into the CPU's class, and into the library for all engines."""
        cpu_class = ctypes.c_uint64.from_address(where.cpu + layout.CPU_CLASS).value
        for offset, original, own in _CLASS_FUNCTIONS:
            function = ctypes.c_uint64.from_address(cpu_class + offset)
            if function.value not in (loaded_unicorn().address(original), native.address(own)):
                raise layout.UnsupportedEngineError(f"its CPU does not use {original}")
            function.value = native.address(own)
        memory_mapping = layout.pointer_to(where.handle, loaded_unicorn().address("find_memory_mapping_ppc64"))
        ctypes.c_uint64.from_address(memory_mapping).value = native.address("find_region")
        replacements.install()

    def answer_page_table_calls(self, native: bool) -> None:
        """Let the native part carry out the hypercalls that it can; on_hypercall gets the rest, or all."""
        self.fast_path.enabled = native

    @property
    def hints(self) -> int:
        """HMT priority hints so far; a vCPU that spins gives many."""
        return int(self.fast_path.hints)

    @property
    def exceptions(self) -> Counter[int]:
        """Exceptions of the guest's own so far, by the engine's number."""
        return Counter({number: count for number, count in enumerate(self.fast_path.delivered) if count})

    def native_calls(self) -> dict[int, int]:
        """Hypercalls that on_hypercall did not get, by token."""
        fast_path = self.fast_path
        return {
            Hcall.H_ENTER: fast_path.entered,
            Hcall.H_REMOVE: fast_path.removed,
            Hcall.H_PROTECT: fast_path.protections,
            Hcall.H_BULK_REMOVE: fast_path.bulk_removals,
        }

    def _make_handler(self) -> Callable[[Any, int, Any], None]:
        """The exception hook for what the native part does not do, as a closure."""
        error_code, fast_path = self.state.error_code, self.fast_path

        def handle(_uc: Any, number: int, _data: Any) -> None:
            try:
                if number == _EXCEPTION_SYSTEM_CALL and error_code.value == 1:
                    self.on_hypercall()
                elif number == DECREMENTER_WRITTEN:
                    self.on_decrementer(fast_path.decrementer)
                elif number == ABORTED:
                    self._give_up()
                else:
                    self._machine_check()
            except BaseException as error:  # Nothing may pass through the C frames; run() raises it.
                self._failure = error
                self.stop()

        return handle

    def _machine_check(self) -> None:
        """Let the guest have it, and say so: it may do nothing about it. Raises GuestFaultError when it cannot take it."""
        state, address = self.state, self.state.nip.value - 4
        fetch = state.error_code.value
        target = address if fetch else state.spr[layout.SPR_DAR]
        what = f"the guest {'fetched an instruction from' if fetch else 'accessed'} real address {target:#x}, where nothing is"
        if state.msr.value & MSR_ME and any(self._buffers[0][_MACHINE_CHECK_VECTOR : _MACHINE_CHECK_VECTOR + 4]):
            self.fast_path.deliver = True
            self._machine_checks += 1
            if self._machine_checks <= _MACHINE_CHECKS_LOGGED:
                log.warning(f"{what}: machine check", at=f"{address:#x}")
            return
        state.nip.value = address
        why = f"has no handler at {_MACHINE_CHECK_VECTOR:#x}" if state.msr.value & MSR_ME else "had MSR[ME] clear"
        raise GuestFaultError(f"{what}, and {why}: at {address:#x}")

    def _give_up(self) -> None:
        """Raise GuestFaultError: the engine would have aborted the process."""
        self.state.nip.value -= 4
        reason = self.fast_path.aborted.decode().strip()
        raise GuestFaultError(f"the engine cannot go on ({reason}): at {self.state.nip.value:#x}")

    def has_register(self, spr: int) -> bool:
        """Whether the guest's CPU has a special purpose register, for whatever privilege."""
        return any(self._registers.get(spr, slot) for slot in (*layout.READ_SLOTS, *layout.WRITE_SLOTS))

    def vector(self, exception: int) -> int:
        """Return the address that an exception of the engine's number goes to; 0 when there is none."""
        if exception >= layout.EXCP_VECTORS_COUNT:
            return 0
        return ctypes.c_uint64.from_address(self.state.address + layout.EXCP_VECTORS + 8 * exception).value

    def reset(self) -> None:
        """Power-on state: registers, translated code, TLB."""
        ctypes.memmove(self.state.address, self._pristine.address, layout.ENV_SIZE)
        self._interrupt_request.value = 0
        self._machine_checks = 0
        self._ctl(self._handle, UC_CTL_TB_FLUSH | UC_CTL_IO_WRITE << 30)
        self.flush_tlb()
        self._code_pages.clear()

    def load(self, saved: SavedState) -> None:
        """Make a saved vCPU the loaded one."""
        ctypes.memmove(self.state.address, saved.address, layout.ENV_SIZE)
        self.flush_tlb()
        self.notice_interrupts()

    def take_over(self, target: SavedState, portable: bytes, page_sizes: Mapping[int, int]) -> None:
        """Give a vCPU of this engine the registers of another process.

        What makes it a PAPR CPU with this machine's page table stays. Its MSR counts only once set_msr() has written it.

        Args:
            target: the vCPU, a copy of state just after reset().
            portable: CpuState.portable() there.
            page_sizes: learn_page_sizes() here.

        Raises ValueError for bytes that cannot be registers.
        """
        target.take_portable(portable, page_sizes)
        if target.spr[layout.SPR_LPCR] >> 23 & 3 == _RESERVED_AIL:
            raise ValueError("LPCR[AIL] has a reserved value")
        for number in (layout.SPR_PVR, layout.SPR_SDR1):
            target.spr[number] = self._pristine.spr[number]
        target.msr.value &= ~_MSR_HV
        target.spr[layout.SPR_LPCR] = target.spr[layout.SPR_LPCR] & _LPCR_GUESTS | _LPCR_LPES

    def use_table(self, size: int) -> None:
        """Let the page table be so many bytes, a power of two, at the beginning of its room.

        The loaded vCPU has it at once, others once their SDR1 is sdr1(size), and every vCPU from the next reset on.
        """
        for state in (self.state, self._pristine):
            state.spr[layout.SPR_SDR1] = sdr1(size)
        self.fast_path.entries = size // PAGE_TABLE_ENTRY_BYTES
        self.flush_tlb()

    def learn_page_sizes(self) -> dict[int, int]:
        """Return the pointer that an SLB entry gets for each page size, by the VSID's bits that tell it.

        The CPU itself tells: it executes slbmte for each. Before the guest runs; RAM stays as it is, vCPUs are reset.
        """
        learnt: dict[int, int] = {}
        for encoding in range(0, layout.SLB_PAGE_SIZE + 1, 0x10):
            if not encoding & ~layout.SLB_PAGE_SIZE:
                self.try_out(
                    {proofs.PROGRAM_VECTOR: proofs.SC_1, _SCRATCH: _SLBMTE_R4_R3 + proofs.SC_1}, {3: _SLB_VALID, 4: encoding}
                )
                if self.state.slb[2]:
                    learnt[encoding] = self.state.slb[2]
        self.reset()
        return learnt

    def try_out(self, program: Mapping[int, bytes], registers: Mapping[int, int]) -> None:
        """Reset, run a program to its first hypercall in real mode, and put RAM back as it was; state has what came out.

        Args:
            program: code by its physical address; it begins at code_tracking.SCRATCH.
            registers: what general purpose registers hold, by number.

        Raises GuestFaultError.
        """
        with self.trying_out(program, registers):
            pass

    @contextmanager
    def trying_out(self, program: Mapping[int, bytes], registers: Mapping[int, int]) -> Iterator[None]:
        """The same, for a program that may have stopped before its hypercall: RAM is put back at the context's end."""
        ram, on_hypercall = memoryview(self._buffers[0]).cast("B"), self.on_hypercall
        kept = {start: bytes(ram[start : start + len(code)]) for start, code in program.items()}
        self.reset()
        self.on_hypercall = self.stop
        try:
            for start, code in program.items():
                ram[start : start + len(code)] = code
            for number, value in registers.items():
                self.state.gpr[number] = value
            self.set_msr(MSR_SF | MSR_ME)
            self.state.nip.value = _SCRATCH
            self.run(1)
            yield
        finally:
            self.on_hypercall = on_hypercall
            for start, data in kept.items():
                ram[start : start + len(data)] = data
            self._ctl(self._handle, UC_CTL_TB_FLUSH | UC_CTL_IO_WRITE << 30)

    def watch(self, page: int | None) -> None:
        """Let run() return after each block that stores into a page of RAM; None: into none. Other pages pay nothing for it.

        Args:
            page: its physical address, a multiple of 4096.
        """
        self.fast_path.watched_page = NO_PAGE if page is None else page
        self.fast_path.watched_stores = 0
        self.flush_tlb()

    def take_watched_stores(self) -> bool:
        """Whether the watched page was stored to since the last time."""
        if not self.fast_path.watched_stores:
            return False
        self.fast_path.watched_stores = 0
        return True

    def set_msr(self, value: int) -> None:
        """Write the loaded vCPU's MSR with all that follows from it."""
        self._uc.reg_write(UC_PPC_REG_MSR, value)

    def notice_interrupts(self) -> None:
        """Let the CPU look at state.pending_interrupts before its next block; only from the engine's thread."""
        if self.state.pending_interrupts.value:
            self._interrupt_request.value |= _INTERRUPT_HARD
        else:
            self._interrupt_request.value &= ~_INTERRUPT_HARD

    def system_reset(self, handler: int) -> None:
        """Interrupt the loaded vCPU, between two instructions, to go on at a real address; only from the engine's thread.

        SRR1 has MSR with bits 33 to 36 and 42 to 47 clear: the processor was in no power-saving mode (Power ISA, III, 6.5.1).
        """
        self._exception_index.value = _EXCEPTION_SYSTEM_RESET
        self._do_interrupt(self._cpu)
        self.state.nip.value = handler

    def flush_tlb(self) -> None:
        """Forget every translation of addresses."""
        self._ctl(self._handle, UC_CTL_TLB_FLUSH | UC_CTL_IO_WRITE << 30)

    def invalidate_code(self, address: int, length: int) -> None:
        """Forget code translated from length bytes of RAM at a physical address; only from the engine's thread."""
        self._code_written(self._fast_path_address, address, length)

    def stop(self) -> None:
        """Make run() return after the present block; from any thread. A stop that comes just before run() may be missed."""
        self.fast_path.stopping = 1
        self._emu_stop(self._handle)

    def run(self, hints: int) -> None:
        """Execute the loaded vCPU until stop(), or until it has given so many HMT hints.

        Raises GuestFaultError when the guest cannot go on, and whatever on_hypercall or on_decrementer raised.
        """
        fast_path = self.fast_path
        fast_path.stopping, fast_path.hints_left = 0, hints
        while fast_path.hints_left:
            code = self._run(self._fast_path_address)
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            if code:
                raise GuestFaultError(f"{binding.uclib.uc_strerror(code).decode()} at {self.state.nip.value:#x}")
            if fast_path.stopping:
                break


def sdr1(table_size: int) -> int:
    """Return the SDR1 of a page table of so many bytes."""
    return HASH_TABLE_BASE | (table_size.bit_length() - 1 - 18)


def _unconnected() -> None:
    raise RuntimeError("the engine runs without an owner of its hypercalls")


def _unconnected_value(_value: int) -> None:
    raise RuntimeError("the engine runs without an owner of its decrementer")
