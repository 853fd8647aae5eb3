# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the firmware and client programs on the real engine, with the real client interface and nothing else of a machine."""

from __future__ import annotations

import asyncio
import io
import mmap
import struct
from collections.abc import Callable, Sequence
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

from cpu_service.engine.engine import MSR_ME, PENDING_DECREMENTER, PENDING_EXTERNAL, Engine
from cpu_service.engine.ram import GuestRam
from cpu_service.hypercalls.xics import Xics
from cpu_service.images.loader import LoadedImage, load_program
from of_client_service.session import ClientInterfaceSession
from splitvisor import firmware
from splitvisor.backend import Call
from splitvisor.declarations.guest_memory import GuestMemory
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from splitvisor.rpc import device_tree_pb2 as dt
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.tree import fdt
from tests.fake_vm import FakeVm
from tests.unit.of_machine import RAM_BYTES, ListedTrees, sample_tree

MSR_EE = 1 << 15
MAX_HYPERCALLS = 20_000
"""A guest that makes more hangs."""
NOW = (2026, 11, 20, 22, 30, 5, 0)


class RtasToken(IntEnum):
    """The RTAS calls of this machine."""

    GET_TIME_OF_DAY = 0x2001
    POWER_OFF = 0x2003
    SYSTEM_REBOOT = 0x2004
    IBM_SET_XIVE = 0x200A


class EngineMemory(GuestMemory):
    """The engine's RAM."""

    def __init__(self, ram: mmap.mmap) -> None:
        self.size = len(ram)
        self._ram = ram

    async def read(self, address: int, length: int) -> bytes:
        self.check(address, length)
        return self._ram[address : address + length]

    async def write(self, address: int, data: bytes) -> None:
        self.check(address, len(data))
        self._ram[address : address + len(data)] = data


class GuestProgram:
    """A machine of one program: its console, and what it did.

    Args:
        typed: what waits at the console.
        input_interrupt: the console's interrupt source, when it has one.
    """

    def __init__(self, typed: bytes = b"", input_interrupt: int | None = None) -> None:
        self.ram = mmap.mmap(-1, RAM_BYTES)
        self.engine = Engine(self.ram, mmap.mmap(-1, 1 << 18))
        self.engine.on_hypercall = self._hypercall
        self.engine.on_decrementer = self._decrementer
        self.output = b""
        self.typed = typed
        self.ended = ""
        """What ended it."""
        self.rests = 0
        self.decrementers: list[int] = []
        self.interrupt = PENDING_DECREMENTER
        """What ends a rest that nothing else ends."""
        self.on_rest: Callable[[int], None] = lambda number: None
        """Called when a rest begins, with its number."""
        self.calls = 0
        self.xics = Xics(1, self._line, lambda: 0)
        self.vcpu: Any = SimpleNamespace(index=0, gpr=self.engine.state.gpr)
        self._loop = asyncio.new_event_loop()
        self.vm = FakeVm(size=0)
        self.vm.memory = EngineMemory(self.ram)
        self.vm.answer = self._type
        tree = sample_tree()
        rtas = tree.root.child("rtas")
        terminal = tree.root.find("/vdevice/vty@71000000")
        assert rtas is not None
        assert terminal is not None
        if input_interrupt is not None:
            terminal.properties["interrupts"] = struct.pack(">2I", input_interrupt, 0)
        for call in RtasToken:
            rtas.properties[call.name.lower().replace("_", "-").replace("ibm-", "ibm,")] = call.to_bytes(4, "big")
        self.session = ClientInterfaceSession(self.vm, ListedTrees([(dt.TREE_ORIGIN_SEED, fdt.emit(tree))]))
        self._loop.run_until_complete(self.session.reset())
        self.ram[: len(firmware.FIRMWARE)] = firmware.FIRMWARE

    def load(self, elf: bytes) -> LoadedImage:
        """Put an ELF client program into RAM."""
        return load_program(GuestRam(self.ram), io.BytesIO(elf), "program")

    def place(self, address: int, *words: int) -> int:
        """Put instructions into RAM; return their address."""
        self.ram[address : address + 4 * len(words)] = struct.pack(f">{len(words)}I", *words)
        return address

    def start(self, entry: int) -> None:
        """Enter the firmware as the machine does, and run until the program has ended."""
        self.run(firmware.ENTRY, {3: entry, 4: 0x700000, 5: 0x40000}, MSR_ME)

    def run(self, nip: int, registers: dict[int, int], msr: int) -> None:
        """Run from an address until the program has ended."""
        for number, value in registers.items():
            self.engine.state.gpr[number] = value
        self.engine.state.nip.value = nip
        self.engine.set_msr(msr)
        while not self.ended:
            self.engine.run(1 << 30)
        self._loop.close()

    def end(self, why: str) -> None:
        """Stop the engine."""
        self.ended = why
        self.engine.stop()

    def _type(self, token: int, arguments: Sequence[int]) -> tuple[int, Sequence[int]]:
        assert token == Hcall.H_GET_TERM_CHAR
        given, self.typed = self.typed[:16], self.typed[16:]
        return H.SUCCESS, (len(given), *struct.unpack(">QQ", given.ljust(16, b"\0")))

    def _hypercall(self) -> None:
        gpr: Any = self.engine.state.gpr
        self.calls += 1
        assert self.calls < MAX_HYPERCALLS, f"the guest hangs; its console: {self.output!r}"
        match gpr[3]:
            case Hcall.H_OF_CLIENT:
                call = Call(vcpu=0, arguments=(gpr[4],))
                gpr[3] = self._loop.run_until_complete(self.session.call_client_interface(call)) & ((1 << 64) - 1)
                for effect in call.effects:
                    self._effect(effect)
            case Hcall.H_CEDE:
                self._rest()
            case Hcall.H_RTAS:
                gpr[3] = self._rtas(gpr[4])
            case Hcall.H_XIRR | Hcall.H_EOI | Hcall.H_CPPR as token:
                handler = {Hcall.H_XIRR: self.xics.xirr, Hcall.H_EOI: self.xics.eoi, Hcall.H_CPPR: self.xics.cppr}[token]
                gpr[3] = handler(self.vcpu) & ((1 << 64) - 1)
            case token:
                self.end(f"hypercall {token:#x}")

    def _effect(self, effect: pb.Effect) -> None:
        if effect.HasField("action"):
            self.end(effect.action.reason)
        else:
            _, length, first, second = effect.invoke.arguments
            self.output += struct.pack(">QQ", first, second)[:length]

    def _rest(self) -> None:
        """H_CEDE, whose wait ends at once with an interrupt."""
        self.rests += 1
        self.on_rest(self.rests)
        state = self.engine.state
        state.gpr[3] = H.SUCCESS
        state.msr.value |= MSR_EE
        if not state.pending_interrupts.value:
            state.pending_interrupts.value = self.interrupt
        self.engine.notice_interrupts()

    def _line(self, server: int, level: bool) -> None:
        """The external interrupt's level."""
        pending = self.engine.state.pending_interrupts
        pending.value = pending.value & ~PENDING_EXTERNAL | (PENDING_EXTERNAL if level else 0)
        self.engine.notice_interrupts()

    def _decrementer(self, value: int) -> None:
        self.decrementers.append(value)
        self.engine.state.pending_interrupts.value &= ~PENDING_DECREMENTER
        self.engine.notice_interrupts()

    def _rtas(self, block: int) -> int:
        token, arguments, returns = struct.unpack_from(">3I", self.ram, block)
        match token:
            case RtasToken.POWER_OFF:
                self.end("power-off")
            case RtasToken.SYSTEM_REBOOT:
                self.end("system-reboot")
            case RtasToken.GET_TIME_OF_DAY:
                assert (arguments, returns) == (0, 8)
                struct.pack_into(">8I", self.ram, block + 12, 0, *NOW)
            case RtasToken.IBM_SET_XIVE:
                assert (arguments, returns) == (3, 1)
                given = struct.unpack_from(">3I", self.ram, block + 12)
                struct.pack_into(">I", self.ram, block + 24, *self.xics.set_xive(self.vcpu, given, returns))
            case _:
                return H.PARAMETER & ((1 << 64) - 1)
        return H.SUCCESS
