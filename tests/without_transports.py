# SPDX-License-Identifier: GPL-2.0-or-later
"""For tests of links without a machine: no device has a transport."""

from __future__ import annotations

from cpu_service.link.events import LinkStatus
from splitvisor.rpc import trap_pb2 as pb


class WithoutTransports:
    """Part of LinkEvents."""

    def put_entries(self, link: LinkStatus, entries: pb.CrqEntries) -> None:
        raise AssertionError(link.name, entries)

    def open_queues(self, link: LinkStatus) -> tuple[pb.OpenQueue, ...]:
        return ()

    def window(self, link: LinkStatus, liobn: int) -> None:
        return None
