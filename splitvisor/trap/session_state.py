# SPDX-License-Identifier: GPL-2.0-or-later
"""A session's state on its way over a connection: out in the parts of a save, in before a restored session begins."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import structlog

from splitvisor.declarations.session import Session
from splitvisor.declarations.state import StateCollector, StateError, parts
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.connection import ContractError

log = structlog.get_logger()


async def saved_states(number: int, session: Session, stand_still: Callable[[], None]) -> AsyncIterator[pb.SavedState]:
    """Yield the answer to a save in parts; what goes wrong is said in the last one.

    stand_still lets what devices write to guest memory wait; it is called once they have finished what they were doing.
    """
    try:
        collector = StateCollector(session.vm.name)
        await session.drain()
        stand_still()
        collector.add(await session.save())
    except StateError as error:
        yield pb.SavedState(id=number, last=True, error=str(error))
    except Exception as error:
        log.exception("state not saved", vm=session.vm.name)
        yield pb.SavedState(id=number, last=True, error=f"it failed: {error}")
    else:
        for data, last in parts(collector.state()):
            yield pb.SavedState(id=number, data=data, last=last)


async def received_state(requests: AsyncIterator[pb.AttachRequest], backend: str) -> bytes:
    """Return the state that follows a hello with `restore`. Raises ContractError, and StateError for one that is too large."""
    collector = StateCollector(backend)
    async for request in requests:
        if not request.HasField("restore_state"):
            raise ContractError("restore_state follows a hello with `restore`")
        collector.add(request.restore_state.data)
        if request.restore_state.last:
            return collector.state()
    raise ContractError("the state to restore does not end")
