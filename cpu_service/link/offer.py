# SPDX-License-Identifier: GPL-2.0-or-later
"""What a back end offers, and what it has now: calls, keys, device-tree nodes, devices, copies of its arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from cpu_service.link.errors import BackendUnavailableError
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.features import check_features

MIRROR_BYTES = 1 << 20
"""The largest array that is kept a copy of."""


class BackendOffer:
    """One back end's offer. Attributes are replaced as a whole, so that every thread sees one state of each.

    Args:
        devices: those that the configuration places at the back end.
        changed: told when routes have other keys or devices other transports, and whether with a new connection; raises
            BackendUnavailableError when one is not the back end's to take.
    """

    def __init__(self, devices: Iterable[pb.DeviceSpec], changed: Callable[[bool], None]) -> None:
        self.backend = ""
        """The name that the back end gives itself."""
        self.ram_mapped = False
        """The back end has mapped guest RAM: operands need not travel."""
        self.routes: Sequence[pb.Route] = ()
        """With the keys that the back end owns now."""
        self.credit_bytes: Sequence[int] = ()
        """Of each route; 0: its calls are not posted."""
        self.nodes: Sequence[pb.TreeNode] = ()
        """What the back end describes for the device tree."""
        self.devices: Sequence[pb.DeviceSpec] = tuple(devices)
        """What the back end has for the configured devices."""
        self.mirrors: dict[str, bytearray] = {}
        """Copies of the back end's arrays, by the name of the call that reads them."""
        self.transports: Sequence[pb.Transport] = ()
        """What is kept for the back end's devices."""
        self.pauses = False
        """Devices may pause the machine, and want to be told when it goes on."""
        self._changed = changed
        self._calls: Sequence[pb.Route] | None = None
        """Routes as far as they must not change; None before the first offer."""

    def take(self, offer: pb.Offer) -> None:
        """Take the offer of a connection.

        Raises UnknownFeatureError, and BackendUnavailableError when the offer cannot be taken; nothing has changed then.
        """
        check_features(offer.features, "it", "cpu_service")
        calls = _fixed(offer.routes)
        if self._calls is not None and calls != self._calls:
            raise BackendUnavailableError("it came back with other routes", "restart the machine to use them")
        if any(len(mirror.contents) > MIRROR_BYTES for mirror in offer.mirrors):
            raise BackendUnavailableError(f"it offered a mirror of more than {MIRROR_BYTES} bytes")
        self._take(tuple(offer.routes), tuple(offer.transports), attached_anew=True)
        self._calls = calls
        self.credit_bytes = tuple(route.posted.credit_bytes for route in offer.routes)
        self.mirrors = {mirror.name: bytearray(mirror.contents) for mirror in offer.mirrors}
        self.pauses = pb.FEATURE_PAUSES in offer.features
        self.backend, self.ram_mapped, self.nodes = offer.backend, offer.ram_mapped, tuple(offer.nodes)

    def take_inventory(self, inventory: pb.Inventory) -> None:
        """Take what the back end has now. Raises BackendUnavailableError for keys that it may not have; nothing changes then."""
        self._take(_with_keys(self.routes, inventory.keys), tuple(inventory.transports), attached_anew=False)
        self.nodes, self.devices = tuple(inventory.nodes), tuple(inventory.devices)

    def _take(self, routes: Sequence[pb.Route], transports: Sequence[pb.Transport], *, attached_anew: bool) -> None:
        before = self.routes, self.transports
        self.routes, self.transports = routes, transports
        try:
            self._changed(attached_anew)
        except BackendUnavailableError:
            self.routes, self.transports = before
            raise

    def mirror_write(self, write: pb.MirrorWrite) -> bool:
        """Change a copy, if there is one; False when there is no such place in it."""
        contents = self.mirrors.get(write.name)
        if contents is None:
            return True
        if write.offset + len(write.data) > len(contents):
            return False
        contents[write.offset : write.offset + len(write.data)] = write.data
        return True


def _fixed(routes: Iterable[pb.Route]) -> list[pb.Route]:
    """Copies of routes as far as they must not change: devices come and go, and keys with them."""
    fixed = list(pb.Offer(routes=routes).routes)
    for route in fixed:
        route.ClearField("keys")
        route.posted.ClearField("key_values")
    return fixed


def _with_keys(routes: Sequence[pb.Route], changes: Sequence[pb.RouteKeys]) -> Sequence[pb.Route]:
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
