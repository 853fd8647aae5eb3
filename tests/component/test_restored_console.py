# SPDX-License-Identifier: GPL-2.0-or-later
"""A terminal at a restored console types before the machine runs, and connections break just then: every byte arrives, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from splitvisor.backend.vio import VioSession
from splitvisor.net.times import duration
from splitvisor.rpc import trap_pb2 as pb
from tests.component.console_harness import BareServer, Guest, Viewer, run_bare

TYPED = b"printenv boot-command\r"
SAID = b"0 > setenv boot-command x   ok\r\n"


def saved(typed: bytes = b"") -> bytes:
    """The state of a VM that has said something, with typed input that it has not read; its vio_service has ended."""
    states = []

    async def scenario(server: BareServer) -> None:
        async with Guest(server.address) as guest:
            guest.post(SAID)
            await guest.settle()
            async with Viewer(server.address, writer=True) as viewer:
                await viewer.opened()
                await viewer.output(len(SAID))
                viewer.type(typed)
                await viewer.accepted(len(typed))
            states.append(await server.traps.sessions()["vm"].save())

    run_bare(scenario)
    return states[0]


class Restored(Guest):
    """A later life of the VM, which brings its state along and says `resumed` when told to."""

    def __init__(self, address: str, state: bytes, *, restore: bool = True, sequence: int = 0) -> None:
        super().__init__(address, incarnation=2, sequence=sequence)
        self.hello.beginning = pb.BEGINNING_RESTORED if restore else pb.BEGINNING_RUNNING
        half = len(state) // 2
        self._parts: Sequence[tuple[bytes, bool]] = ((state[:half], False), (state[half:], True)) if restore else ()

    async def _requests(self) -> AsyncIterator[pb.AttachRequest]:
        requests = super()._requests()
        yield await anext(requests)
        for data, last in self._parts:
            yield pb.AttachRequest(restore_state=pb.RestoreState(data=data, last=last))
        async for request in requests:
            yield request

    def resume(self) -> None:
        self._outgoing.put_nowait(pb.AttachRequest(resumed=pb.Resumed()))


@asynccontextmanager
async def typing(server: BareServer) -> AsyncIterator[None]:
    """A terminal that waits for the VM, sees what was said before the save, and has typed by then."""
    async with Viewer(server.address, writer=True, wait=duration(30)) as viewer:
        viewer.type(TYPED)
        watching = asyncio.create_task(viewer.opened())
        yield
        await watching
        assert await viewer.output(len(SAID)) == SAID
        await viewer.accepted(len(TYPED))


BREAKS = {
    "never": (),
    "restored, not resumed": (False,),
    "restored twice": (True,),
    "twice more": (True, False),
}
"""How many connections are lost before one stays, and whether the next one restores: its offer was lost too."""


@pytest.mark.parametrize("breaks", BREAKS)
def test_what_was_typed_before_the_machine_ran_arrives(breaks: str) -> None:
    state = saved()

    async def scenario(server: BareServer) -> None:
        async with typing(server):
            restore = True
            for again in BREAKS[breaks]:
                async with Restored(server.address, state, restore=restore) as lost:
                    assert lost.offer.backend == "vio_service"
                restore = again
            async with Restored(server.address, state, restore=restore) as guest:
                guest.resume()
                assert await guest.read(len(TYPED)) == TYPED
                reply = await guest.call("H_GET_TERM_CHAR", 0x7100_0000)
                assert reply.outputs[0] == 0, "nothing came twice"

    run_bare(scenario)


def test_input_waits_until_the_machine_runs() -> None:
    state = saved(b"before ")

    async def scenario(server: BareServer) -> None:
        async with typing(server), Restored(server.address, state) as guest:
            assert await guest.read(len(b"before ")) == b"before ", "what was in the state is there"
            session = server.traps.sessions()["vm"]
            assert isinstance(session, VioSession)
            [console] = session.host.all()
            assert (console.is_frozen, console.waiting_input) == (True, 0)
            guest.resume()
            assert await guest.read(len(TYPED)) == TYPED

    run_bare(scenario)


def test_a_connection_that_breaks_when_the_machine_is_let_run_loses_no_input() -> None:
    state = saved()

    async def scenario(server: BareServer) -> None:
        async with typing(server):
            async with Restored(server.address, state) as lost:
                reply = await lost.call("H_GET_TERM_CHAR", 0x7100_0000)
                assert reply.outputs[0] == 0
            # `resumed` went with the connection: attaching again stands for it.
            async with Restored(server.address, b"", restore=False, sequence=1) as guest:
                assert await guest.read(len(TYPED)) == TYPED

    run_bare(scenario)
