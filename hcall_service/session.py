# SPDX-License-Identifier: GPL-2.0-or-later
"""One VM at hcall_service: every call that this back end owns, in one table."""

from __future__ import annotations

import asyncio

from hcall_service import session_state
from hcall_service.platform.hypercalls import PLATFORM_CALLS
from hcall_service.platform.rtas import RTAS_CALLS, IdentityLookup, RtasSession
from hcall_service.trees.update_dt import UPDATE_DT_CALLS, TreeUpdates
from splitvisor.backend import Hypercall, RtasCall, Vm


class PlatformSession(RtasSession):
    """RTAS and the platform's hypercalls for one VM.

    Args:
        vm: the VM.
        identity: given its name, returns its UUID.
        tree_updates: takes the trees of its firmware.
    """

    calls: tuple[Hypercall | RtasCall, ...] = (*RTAS_CALLS, *PLATFORM_CALLS, *UPDATE_DT_CALLS)

    def __init__(self, vm: Vm, identity: IdentityLookup, tree_updates: TreeUpdates) -> None:
        super().__init__(vm, identity)
        self.tree_updates = tree_updates

    async def save(self) -> bytes:
        """See Session: RTAS, and the VM's trees."""
        return await asyncio.to_thread(session_state.save, self, self.tree_updates.store)

    async def restore(self, state: bytes) -> None:
        """See Session."""
        await asyncio.to_thread(session_state.restore, self, self.tree_updates.store, state)
