# SPDX-License-Identifier: GPL-2.0-or-later
"""An RTAS call that counts, and tells what it was called with."""

from __future__ import annotations

from splitvisor.backend import Backend, Call, Operand, Result, RtasCall, Session, Vm
from splitvisor.papr.codes import RtasStatus

COUNT = "example,count"
MAX_LABEL, MAX_AMOUNT = 32, 1000


class CounterSession(Session):
    """One VM's counters, by label."""

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm)
        self.counters: dict[bytes, int] = {}

    async def reset(self) -> None:
        """Begin with none."""
        self.counters.clear()

    async def count(self, call: Call) -> Result:
        """example,count(label's address, amount): (status, sum, number of counters)."""
        address, amount = call.arguments
        try:
            label = await self.vm.memory.read_string(address, MAX_LABEL)
        except ValueError:
            return Result(returns=(RtasStatus.PARAMETER_ERROR,))
        if amount > MAX_AMOUNT or (label not in self.counters and len(self.counters) == MAX_AMOUNT):
            return Result(returns=(RtasStatus.PARAMETER_ERROR,))
        self.counters[label] = (self.counters.get(label, 0) + amount) & 0xFFFF_FFFF
        return Result(returns=(RtasStatus.SUCCESS, self.counters[label], len(self.counters)))

    # The label travels with the call: a back end on another host need not ask for it.
    label = Operand(MAX_LABEL, argument=0, string=True)
    calls = (RtasCall(COUNT, count, section="examples", arguments=2, returns=3, operands=(label,)),)


BACKEND = Backend("counter", CounterSession)

if __name__ == "__main__":
    BACKEND.serve()
