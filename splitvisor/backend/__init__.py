# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of a trap back end: a Session per VM and a table of the calls that it owns.

A minimal device:

    class Counter(Session):
        def __init__(self, vm: Vm) -> None:
            super().__init__(vm)
            self.value = 0

        def count(self, call: Call) -> Result:
            self.value += call.arguments[0]
            return Result(outputs=(self.value,))

        calls = (Hypercall(0xF100, count, arguments=1, section="an example", name="H_COUNT"),)

    if __name__ == "__main__":
        Backend("counter", Counter).serve()

A handler is a function of (session, call), plain or `async`; it must be async to use guest memory. It returns a Result, or an
int alone: the value for r3, or the status of an RTAS call. Handlers of one VM never overlap.
"""

from splitvisor.backend.serve import Backend
from splitvisor.declarations.calls import (
    Call,
    DescribedBuffers,
    Handler,
    Hypercall,
    Key,
    Keys,
    Mirrored,
    Operand,
    Posted,
    Result,
    RtasCall,
    Support,
)
from splitvisor.declarations.guest_memory import GuestAddressError, GuestMemory
from splitvisor.declarations.nodes import PropertyValue, tree_node
from splitvisor.declarations.session import Session, Vm
from splitvisor.declarations.state import StateError

__all__ = [
    "Backend",
    "Call",
    "DescribedBuffers",
    "GuestAddressError",
    "GuestMemory",
    "Handler",
    "Hypercall",
    "Key",
    "Keys",
    "Mirrored",
    "Operand",
    "Posted",
    "PropertyValue",
    "Result",
    "RtasCall",
    "Session",
    "StateError",
    "Support",
    "Vm",
    "tree_node",
]
