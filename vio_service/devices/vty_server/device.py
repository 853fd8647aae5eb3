# SPDX-License-Identifier: GPL-2.0-or-later
"""vty-server: a terminal in a guest, at the console of a VTY of the same VM or of another one (LoPAPR 16.2.1.2).

To that console it is one of its terminals, the one that types. Which VTYs it may have is for their VM to say: the option `server`
of a VTY names the VM whose vty-servers may take it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress

from splitvisor.backend import Call, Vm
from splitvisor.backend.vio import VioDevice
from splitvisor.papr.codes import H
from splitvisor.rpc import trap_pb2
from vio_service.console.console import Attachment, ConsoleBusyError
from vio_service.console.exchange import Partner
from vio_service.console.vm_consoles import VmConsoles
from vio_service.devices.vty.terminal import BLOCK_BYTES
from vio_service.devices.vty_server import state

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 1.0
"""Between two interrupts for output that the guest does not read."""
OUTPUT_BYTES = 4096
"""Of the partner's output, taken at a time."""


class VtyServer(VioDevice):
    """The other end of a VTY."""

    kind = "vty-server"
    node_name = "vty-server"
    device_type = "serial-server"
    compatible = "hvterm2"
    signal_mask = 1

    def __init__(self, vm: Vm, unit_address: int, options: Mapping[str, str]) -> None:
        super().__init__(vm, unit_address, options)
        self._host: VmConsoles | None = None
        self._connection: Attachment | None = None
        self._output = b""
        """Of the partner, taken from its console, that the guest has not read."""
        self._drained = asyncio.Event()
        """The guest has found that there is no more."""
        self._watch: asyncio.Task[None] | None = None
        self._restored: state.Connection | None = None

    def properties(self) -> Sequence[trap_pb2.TreeProperty]:
        """Linux' driver looks for this one."""
        return (trap_pb2.TreeProperty(name="ibm,vserver"),)

    def plugged(self, host: VmConsoles) -> None:
        """See VioDevice."""
        self._host = host

    def partners(self) -> Sequence[Partner]:
        """Return the VTYs that it may be connected to, in order."""
        assert self._host is not None, "a device is plugged in before a guest can use it"
        return self._host.exchange.partners(self.vm.name)

    def connect(self, key: tuple[int, int]) -> int:
        """Take a partner's terminal, in place of the one that it has; return r3 of H_REGISTER_VTERM."""
        partner = next((each for each in self.partners() if each.key == key), None)
        if partner is None:
            return H.PARAMETER
        if self._connection is not None and self._connection.console is not partner.console:
            self.disconnect()
        return H.SUCCESS if self._attach(partner) else H.BUSY

    def _attach(self, partner: Partner, position: int | None = None) -> bool:
        """Become the writer of a console, from a position of its output on; return whether it could be."""
        if self._connection is not None:
            return True
        client = f"vty-server {self.unit_address:#x} of VM {self.vm.name}"
        if partner.console.writer is not None:
            return False
        try:
            connection = partner.console.attach(client, writer=True, force=False, replay=False, resume=position)
        except ConsoleBusyError:
            return False
        self._connection = connection
        self._watch = asyncio.get_running_loop().create_task(self._signal_output(connection))
        return True

    def disconnect(self) -> None:
        """Let go of the partner."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._connection is not None:
            self._connection.console.detach(self._connection)
            self._connection = None
        self._output = b""

    async def _signal_output(self, connection: Attachment) -> None:
        """Interrupt the guest while there is output of the partner that it has not read, and at the partner's end.

        A pulse is lost while the guest has the device's signal off, which Linux' driver has until it has read everything: what
        comes between its last look and H_VIO_SIGNAL would wait there. So the guest is told again, less and less often.
        """
        pause = FIRST_PAUSE_S
        while connection.end is None:
            connection.wake.clear()
            self._fill()
            if not self._output:
                pause = FIRST_PAUSE_S
                await connection.more()
                continue
            self.vm.interrupt(self.interrupt_source)
            self._drained.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._drained.wait()
            pause = min(2 * pause, LONGEST_PAUSE_S)
        self.vm.interrupt(self.interrupt_source)

    def _fill(self) -> None:
        connection = self._connection
        if connection is not None and not self._output:
            connection.take_skipped()
            self._output = connection.take_output(OUTPUT_BYTES)

    def put_block(self, call: Call, data: bytes) -> int:
        """See Terminal: the partner's guest reads it. H_BUSY: it reads too slowly; H_CLOSED: there is no partner."""
        connection = self._connection
        if connection is None or connection.end is not None or not connection.is_writer:
            return H.CLOSED
        if connection.console.room < len(data):
            return H.BUSY
        connection.console.push_input(data)
        return H.SUCCESS

    def get_block(self) -> tuple[int, bytes]:
        """See Terminal: what the partner's guest has written. H_CLOSED: all of it is read, and there is no partner any more."""
        self._fill()
        block, self._output = self._output[:BLOCK_BYTES], self._output[BLOCK_BYTES:]
        if not block:
            self._drained.set()
        connection = self._connection
        if not block and (connection is None or connection.end is not None or not connection.is_writer):
            return H.CLOSED, b""
        return H.SUCCESS, block

    def reset(self) -> None:
        """See VioDevice."""
        super().reset()
        self.disconnect()

    def attached(self) -> None:
        """See VioDevice: the pulse may have gone with the lost connection."""
        if self._output:
            self.vm.interrupt(self.interrupt_source)

    def close(self) -> None:
        """See VioDevice."""
        self.disconnect()

    def save(self) -> bytes:
        """See VioDevice."""
        connection = self._connection
        if connection is None:
            return b""
        console = connection.console
        return state.save(state.Connection(console.vm, console.unit_address, connection.position, self._output))

    def restore(self, data: bytes) -> None:
        """See VioDevice. Connected again once everything is restored."""
        self._restored = state.restored(data, self.name) if data else None

    def resumed(self) -> None:
        """See VioDevice: a partner that is there still, or again, is its partner."""
        restored, self._restored = self._restored, None
        if restored is None:
            return
        for partner in self.partners():
            if (partner.console.vm, partner.console.unit_address) == (restored.vm, restored.unit_address):
                self._output = restored.output
                if not self._attach(partner, min(restored.position, partner.console.output.end)):
                    self._output = b""
                return
