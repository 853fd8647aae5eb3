# SPDX-License-Identifier: GPL-2.0-or-later
"""What a link to a back end, its machine and its recorder agree on: options, errors, and what each tells the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import grpc

from splitvisor.rpc import trap_pb2 as pb

if TYPE_CHECKING:
    from cpu_service.link.connection import LinkConnection
    from cpu_service.link.wire import WireEndedError

REFUSALS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)
"""What a back end says that will say so again."""
_OWN_WORDS = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)


class BackendUnavailableError(Exception):
    """A back end cannot be reached or does not keep the contract."""


class BackendRefusedError(Exception):
    """A back end does not take the state that it is to restore."""


class LinkEvents(Protocol):
    """What a link tells the machine; called from the link's thread."""

    def interrupt(self, source: int) -> None:
        """Pulse an interrupt source."""

    def action(self, action: pb.MachineAction) -> None:
        """Change the machine's state."""

    def memory_written(self, address: int, length: int) -> None:
        """RAM was written by the back end: code translated from there is stale."""

    def connection_changed(self, link: LinkConnection) -> None:
        """The stream went down or came back."""

    def keys_changed(self, link: LinkConnection) -> None:
        """Its routes have other keys. Raises BackendUnavailableError when one is another back end's."""


class MessageTap(Protocol):
    """Shown every message of a link, from the link's threads; messages do not change afterwards."""

    def sent(self, message: pb.AttachRequest) -> None:
        """A message is about to be sent."""

    def received(self, message: pb.AttachResponse) -> None:
        """A message has come, and nothing was done about it yet."""


def offered_calls(offer: pb.Offer) -> list[pb.Route]:
    """The routes of an offer as far as they must not change: devices come and go, and keys with them."""
    offer = pb.Offer(routes=offer.routes)
    for route in offer.routes:
        route.ClearField("keys")
        route.posted.ClearField("key_values")
    return list(offer.routes)


def with_keys(routes: Sequence[pb.Route], changes: Sequence[pb.RouteKeys]) -> Sequence[pb.Route]:
    """Return routes with other keys. Raises BackendUnavailableError for a change of a route that can have none."""
    changed = list(routes)
    for change in changes:
        known = routes[change.route] if change.route < len(routes) else pb.Route()
        if (change.keys and not known.HasField("selector")) or not (known.HasField("selector") or known.HasField("posted")):
            raise BackendUnavailableError(f"it changes the keys of route {change.route}, which has none")
        route = pb.Route()
        route.CopyFrom(known)
        del route.keys[:]
        route.keys.extend(change.keys)
        if route.HasField("posted"):
            route.posted.key_values[:] = change.posted_keys
        changed[change.route] = route
    return tuple(changed)


def explain_end(error: WireEndedError) -> str:
    """Return in one line why a stream ended: a back end's own words, or what kind of end it was."""
    return error.details if error.code in _OWN_WORDS else f"{error.code.name.lower().replace('_', ' ')}: {error.details}"
