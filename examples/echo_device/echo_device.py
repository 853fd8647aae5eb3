# SPDX-License-Identifier: GPL-2.0-or-later
"""A device that keeps what the guest sends, interrupts, and gives it back turned round."""

from __future__ import annotations

from collections.abc import Sequence

from splitvisor.backend import Backend, Call, Hypercall, Result, Session, Vm, tree_node
from splitvisor.papr.codes import H
from splitvisor.rpc import trap_pb2

UNIT, SOURCE, MAX_BYTES = 0x3000_0000, 0x11F0, 4096
H_ECHO_SEND, H_ECHO_RECEIVE = 0xF120, 0xF124


class EchoSession(Session):
    """One VM's device."""

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm)
        self.kept = b""

    async def reset(self) -> None:
        """Forget."""
        self.kept = b""

    def nodes(self) -> Sequence[trap_pb2.TreeNode]:
        """The node that a guest's driver finds."""
        return [tree_node(f"/vdevice/echo@{UNIT:x}", {"reg": UNIT, "interrupts": (SOURCE, 0), "compatible": "example,echo"})]

    async def send(self, call: Call) -> int:
        """H_ECHO_SEND(unit, address, length): take the bytes, then interrupt."""
        unit, address, length = call.arguments
        if unit != UNIT or length > MAX_BYTES:
            return H.PARAMETER
        self.kept = await self.vm.memory.read(address, length)
        call.interrupt(SOURCE)
        return H.SUCCESS

    async def receive(self, call: Call) -> Result:
        """H_ECHO_RECEIVE(unit, address, room): put the bytes there, turned round; their number goes to r4."""
        unit, address, room = call.arguments
        if unit != UNIT or room < len(self.kept):
            return Result(H.PARAMETER)
        await self.vm.memory.write(address, self.kept[::-1])
        return Result(outputs=(len(self.kept),))

    calls = (
        Hypercall(H_ECHO_SEND, send, arguments=3, section="examples", name="H_ECHO_SEND"),
        Hypercall(H_ECHO_RECEIVE, receive, arguments=3, section="examples", name="H_ECHO_RECEIVE"),
    )


BACKEND = Backend("echo", EchoSession)

if __name__ == "__main__":
    BACKEND.serve()
