# SPDX-License-Identifier: GPL-2.0-or-later
"""VTY: the virtual serial port of a pseries guest (LoPAPR 16.2 and 17.5), a thin layer over a Console.

Output is posted: the guest goes on as soon as cpu_service has the bytes. Input is signalled by an interrupt when the first byte
comes in; the guest then reads until H_GET_TERM_CHAR returns nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from splitvisor.backend import Call, Vm
from splitvisor.backend.vio import VioDevice
from splitvisor.papr.codes import H
from splitvisor.rpc import console_pb2
from vio_service.console.console import Console
from vio_service.console.vm_consoles import VmConsoles
from vio_service.devices.vty import state
from vio_service.devices.vty.terminal import BLOCK_BYTES


class Vty(VioDevice):
    """A virtual terminal.

    Option: `server`, the name of a VM whose vty-servers may take its console, its own or another's.
    """

    kind = "vty"
    node_name = "vty"
    device_type = "serial"
    compatible = "hvterm1"
    serial = True
    option_names = frozenset({"server"})

    def __init__(self, vm: Vm, unit_address: int, options: Mapping[str, str]) -> None:
        super().__init__(vm, unit_address, options)
        self.console = Console(vm.name, unit_address, on_input=self._signal)
        self._consoles: VmConsoles | None = None

    def _signal(self) -> None:
        self.vm.interrupt(self.interrupt_source)

    def plugged(self, host: VmConsoles) -> None:
        """See VioDevice: terminals may attach to its console."""
        host.open(self.console, self.options.get("server", ""))
        self._consoles = host

    def unplugged(self) -> None:
        """See VioDevice."""
        self.close()
        if self._consoles is not None:
            self._consoles.shut(self.console)

    def print(self, call: Call, data: bytes) -> None:
        """Show what a call writes."""
        assert self._consoles is not None, "a device is plugged in before a guest can use it"
        self._consoles.print(call, self.console, data)

    def put_block(self, call: Call, data: bytes) -> int:
        """See Terminal."""
        self.print(call, data)
        return H.SUCCESS

    def get_block(self) -> tuple[int, bytes]:
        """See Terminal."""
        return H.SUCCESS, self.read_block()

    def attached(self) -> None:
        """Pulse again for input that waits: the first pulse may have gone with the lost connection. A save is over with it."""
        self.console.thaw()
        if self.console.waiting_input:
            self._signal()

    def close(self) -> None:
        """Tell the terminals, after the last output."""
        self.console.end(console_pb2.CONSOLE_END_REASON_VM_ENDED, "the VM has ended")

    def replaced(self) -> None:
        """Tell the terminals to come again: the console goes on elsewhere."""
        self.console.end(console_pb2.CONSOLE_END_REASON_SHUTDOWN, "another cpu_service has the VM now")

    def save(self) -> bytes:
        """See VioDevice. No input is taken until resumed()."""
        return state.save(self.console)

    def resumed(self) -> None:
        """See VioDevice."""
        self.console.thaw()

    def restore(self, data: bytes) -> None:
        """See VioDevice. Input is taken once the VM runs: should it not, whoever has it then gets what was typed."""
        state.restore(self.console, data, self.name, moved=self.vm.moved)

    def read_block(self) -> bytes:
        """Take up to 16 bytes of input; a block ends before a NUL that follows a CR.

        PowerVM once put a NUL after each CR, and Linux still removes one that comes in the same block: so a real one must not.
        """
        block = bytearray()
        for byte in self.console.peek_input(BLOCK_BYTES):
            if not byte and block.endswith(b"\r"):
                break
            block.append(byte)
        if block:
            self.console.drop_input(len(block))
        return bytes(block)
