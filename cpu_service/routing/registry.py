# SPDX-License-Identifier: GPL-2.0-or-later
"""Who owns each hypercall and RTAS call: a local handler, a back end, or several back ends by a key in the arguments."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cpu_service.engine.ram import GuestRam
from cpu_service.hypercalls.declarations import LocalHypercall, LocalRtas
from cpu_service.link.backend_link import BackendLink
from cpu_service.link.events import LinkStatus
from cpu_service.routing.key_table import KeyRange, KeyTable, OverlapError
from cpu_service.routing.remote_call import WORD_MASK, RemoteCall, SharedCall, key_ranges
from splitvisor.errors.problem import ProblemError
from splitvisor.papr.hcall import Hcall
from splitvisor.papr.rtas import FIRST_FREE_TOKEN, TOKENS
from splitvisor.rpc import trap_pb2 as pb

LOCAL = "local"
MAX_HYPERCALL_TOKEN = 0xFFFF
MAX_ARGUMENTS = 9
MAX_OPERAND_BYTES = 64 << 10
MAX_BUFFER_BYTES = 64 << 10
"""Of a posted call."""
MAX_RTAS_ARGUMENTS = 16
"""Among which a key may stand."""
MAX_KEY_RANGES = 256
"""Of one route."""
SHOWN_KEYS = 4
"""In a message."""


class RegistryError(ProblemError):
    """A call cannot be registered: it has an owner already, or its route makes no sense."""


@dataclass(frozen=True)
class RegisteredRtas:
    """An RTAS call with the token that the device tree publishes."""

    token: int
    name: str
    owner: LocalRtas | RemoteCall | SharedCall
    first: LocalRtas | None = None
    """Is asked before the owner."""


class Registry:
    """The owners of every hypercall token and RTAS call of a machine.

    A call has one owner, or several that a key in its arguments selects (a device of a bus), or none.

    Args:
        known_tokens: RTAS tokens by name that a guest knows already, having been saved.
    """

    def __init__(self, known_tokens: Mapping[str, int] | None = None) -> None:
        self.local: dict[int, LocalHypercall] = {}
        self.remote: dict[int, RemoteCall | SharedCall] = {}
        self.rtas: dict[int, RegisteredRtas] = {}
        self._rtas_tokens: dict[str, int] = {}
        self._known_tokens = known_tokens or {}
        self._next_free_token = max((FIRST_FREE_TOKEN - 1, *self._known_tokens.values())) + 1
        self._lock = threading.Lock()
        """Of changes: keys change on links' threads. Whoever looks up needs no lock."""
        self._offered: dict[str, list[tuple[RemoteCall, SharedCall | None]]] = {}
        """The calls of each link, by its name, in the order of its offer."""

    def add_local(self, calls: Iterable[LocalHypercall | LocalRtas]) -> None:
        """Register calls that cpu_service handles itself. Raises RegistryError."""
        for call in calls:
            if isinstance(call, LocalRtas):
                if call.name in self._rtas_tokens:
                    raise _claimed(f"RTAS call {call.name!r}", self.rtas[self._rtas_tokens[call.name]].owner, LOCAL)
                self._add_rtas(call.name, call)
            else:
                self._check_free(call.token, call.call_name, LOCAL)
                self.local[call.token] = call

    def add_offer(self, link: BackendLink) -> None:
        """Register what a back end offers. Raises RegistryError and then leaves the registry unfit for use."""
        with self._lock:
            calls = self._offered[link.name] = []
            for index, route in enumerate(link.offer.routes):
                _check_route(route, link.name)
                call = RemoteCall(link, index, route)
                selector = route.selector if route.HasField("selector") else None
                calls.append((call, self._add_call(route, call, selector)))

    def _add_call(self, route: pb.Route, call: RemoteCall, selector: pb.Selector | None) -> SharedCall | None:
        """Make a back end an owner of a call. Returns the shared call that it owns a part of."""
        if call.is_rtas:
            what = f"RTAS call {route.name!r}"
            token = self._rtas_tokens.get(route.name)
            known = None if token is None else self.rtas[token].owner
        else:
            what = f"hypercall {route.name} ({route.token:#x})"
            known = self.remote.get(route.token)
            if known is None:
                self._check_free(route.token, route.name, call.owner)
        first = known if isinstance(known, LocalRtas) and known.shared else None
        if first is not None:
            known = None
        if isinstance(known, SharedCall) and selector is not None and all(call.link is not each.link for each in known.calls):
            _join(known, call, selector, what)
            return known
        if known is not None:
            raise _claimed(what, known, call.owner, "" if selector is None else f" for {_text(call.keys)}")
        owner: RemoteCall | SharedCall = call
        if selector is not None:
            owner = SharedCall(call, selector)
        if call.is_rtas:
            self._add_rtas(route.name, owner, first)
        else:
            self.remote[route.token] = owner
        return owner if isinstance(owner, SharedCall) else None

    def take_keys(self, link: LinkStatus) -> None:
        """Take over the keys that a back end owns now; from any thread.

        Raises RegistryError, which names the key and both owners, when one is another's; then the back end owns what it owned.
        """
        with self._lock:
            routes = link.offer.routes
            for route in routes:
                _check_keys(route, link.name)
            calls = list(zip(self._offered.get(link.name, ()), routes, strict=False))
            tables = [
                (shared, _table(shared, {call: key_ranges(route)})) for (call, shared), route in calls if shared is not None
            ]  # All of them before the first is used: a guest sees every change or none.
            for (call, _), route in calls:
                call.take_keys(route)
            for shared, table in tables:
                shared.use(table)

    def hypercall_owner(self, token: int, ram: GuestRam, arguments: Sequence[int]) -> RemoteCall | None:
        """Return the back end's call that a hypercall with these arguments is."""
        known = self.remote.get(token)
        return next(iter(known.select(ram, arguments)), None) if isinstance(known, SharedCall) else known

    def rtas_calls(self) -> Sequence[RegisteredRtas]:
        """Every RTAS call by token."""
        return sorted(self.rtas.values(), key=lambda call: call.token)

    def hypercalls(self) -> Sequence[int]:
        """Every owned hypercall token, ascending."""
        return sorted({*self.local, *self.remote})

    def _add_rtas(self, name: str, owner: LocalRtas | RemoteCall | SharedCall, first: LocalRtas | None = None) -> None:
        token = self._rtas_tokens.get(name, self._known_tokens.get(name, TOKENS.get(name)))
        if token is None:
            token = self._next_free_token
            self._next_free_token += 1
        self._rtas_tokens[name] = token
        self.rtas[token] = RegisteredRtas(token, name, owner, first)

    def _check_free(self, token: int, name: str, claimant: str) -> None:
        what = f"hypercall {name} ({token:#x})"
        if token == Hcall.H_RTAS:
            raise RegistryError(f"{what} is claimed by the RTAS dispatcher and by {claimant}")
        owner = self.local.get(token) or self.remote.get(token)
        if owner is not None and not (isinstance(owner, LocalHypercall) and owner.shared):
            raise _claimed(what, owner, claimant)


def _owner_name(owner: LocalHypercall | LocalRtas | RemoteCall | SharedCall) -> str:
    if isinstance(owner, SharedCall):
        return owner.calls[0].owner
    return owner.owner if isinstance(owner, RemoteCall) else LOCAL


def _claimed(
    what: str, owner: LocalHypercall | LocalRtas | RemoteCall | SharedCall, claimant: str, share: str = ""
) -> RegistryError:
    known = f" for {_text(owner.calls[0].keys)}" if isinstance(owner, SharedCall) else ""
    return RegistryError(f"{what} is claimed by {_owner_name(owner)}{known} and by {claimant}{share}")


def _text(keys: Sequence[KeyRange]) -> str:
    """Describe keys in a few words."""
    shown = ", ".join(
        f"{each.first:#x}" + (f" to {each.last:#x}" if each.last != each.first else "") for each in keys[:SHOWN_KEYS]
    )
    return f"key {shown}{', ...' if len(keys) > SHOWN_KEYS else ''}" if shown else "no key yet"


def _table(shared: SharedCall, changed: Mapping[RemoteCall, Sequence[KeyRange]]) -> KeyTable[RemoteCall]:
    """See SharedCall.table. Raises RegistryError."""
    try:
        return shared.table(changed)
    except OverlapError as error:
        first, second = (owner.owner if isinstance(owner, RemoteCall) else LOCAL for owner in error.owners)
        raise RegistryError(f"{shared.name}: key {error.key:#x} is claimed by {first} and by {second}") from None


def _join(shared: SharedCall, call: RemoteCall, selector: pb.Selector, what: str) -> None:
    """Make a back end one more owner of a shared call. Raises RegistryError."""
    first = shared.calls[0]
    if selector != shared.selector:
        raise RegistryError(f"{what}: {first.owner} and {call.owner} do not select by the same key", "selectors must be equal")
    if not call.reads_key_as(first, selector):
        raise RegistryError(f"{what}: {first.owner} and {call.owner} have different operands where the key is")
    for field in ("name", "arguments"):
        one, other = getattr(first, field), getattr(call, field)
        if one != other:
            raise RegistryError(f"{what}: its {field} is {one} to {first.owner} and {other} to {call.owner}", "they must agree")
    shared.calls.append(call)
    shared.use(_table(shared, {}))


def _check_route(route: pb.Route, backend: str) -> None:
    """Refuse a route that could make cpu_service read without bound."""
    if not route.name or len(route.name) > 64:
        raise RegistryError(f"back end {backend} offers a call without a name of 1 to 64 characters")
    where = f"back end {backend}, {route.name}"
    if route.kind not in (pb.CALL_KIND_HYPERCALL, pb.CALL_KIND_RTAS):
        raise RegistryError(f"{where}: its kind is neither hypercall nor RTAS")
    if route.kind == pb.CALL_KIND_HYPERCALL and not 0 < route.token <= MAX_HYPERCALL_TOKEN:
        raise RegistryError(f"{where}: token {route.token:#x} is not between 1 and {MAX_HYPERCALL_TOKEN:#x}")
    if route.arguments > MAX_ARGUMENTS:
        raise RegistryError(f"{where}: {route.arguments} arguments, a hypercall has at most {MAX_ARGUMENTS}")
    if sum(operand.size for operand in route.operands) > MAX_OPERAND_BYTES:
        raise RegistryError(f"{where}: operands of more than {MAX_OPERAND_BYTES} bytes")
    for number, operand in enumerate(route.operands):
        if operand.WhichOneof("base") == "word" and operand.word.operand >= number:
            raise RegistryError(f"{where}: operand {number} hangs on one that does not come before it")
    if route.HasField("selector"):
        _check_selector(route, where)
    elif route.keys:
        raise RegistryError(f"{where}: it has keys, but no selector that says where they stand")
    _check_keys(route, backend)
    if route.HasField("posted"):
        sized = 0 if route.posted.call_bytes else route.posted.size_argument
        used = max(route.posted.key_argument, sized)
        if route.kind != pb.CALL_KIND_HYPERCALL or used >= route.arguments:
            raise RegistryError(f"{where}: a posted call is a hypercall whose key and size are among its arguments")
    if route.HasField("buffers"):
        _check_buffers(route, where)


def _check_buffers(route: pb.Route, where: str) -> None:
    buffers = route.buffers
    if not route.HasField("posted"):
        raise RegistryError(f"{where}: it has buffers and is not posted")
    if not 0 < buffers.count <= route.arguments or buffers.first + buffers.count > route.arguments:
        raise RegistryError(f"{where}: its buffers are not described by arguments that it has")
    if buffers.max_bytes > MAX_BUFFER_BYTES:
        raise RegistryError(f"{where}: buffers of more than {MAX_BUFFER_BYTES} bytes")
    if not (route.posted.call_bytes or (buffers.min_bytes and buffers.max_bytes)):
        raise RegistryError(f"{where}: its calls may take no credit")


def _check_selector(route: pb.Route, where: str) -> None:
    selector = route.selector
    # RTAS calls send every argument; those that are not there select nobody.
    limit = route.arguments if route.kind == pb.CALL_KIND_HYPERCALL else MAX_RTAS_ARGUMENTS
    match selector.WhichOneof("key"):
        case "argument":
            fits = selector.argument < limit
        case "argument_pair":
            fits = selector.argument_pair + 1 < limit
        case "word":
            fits = selector.word.operand < len(route.operands)
            fits = fits and 4 * selector.word.index + 4 <= route.operands[selector.word.operand].size
        case "everybody" if not route.HasField("posted"):
            fits = True
        case "everybody":
            raise RegistryError(f"{where}: a call of everybody cannot be posted")
        case _:
            raise RegistryError(f"{where}: its selector does not say where the key stands")
    if not fits:
        raise RegistryError(f"{where}: its selector names an argument or operand that the route does not have")


def _check_keys(route: pb.Route, backend: str) -> None:
    if len(route.keys) > MAX_KEY_RANGES or len(route.posted.key_values) > MAX_KEY_RANGES:
        raise RegistryError(f"back end {backend}, {route.name}: more than {MAX_KEY_RANGES} ranges of keys")
    highest = (1 << 64) - 1 if route.selector.WhichOneof("key") == "argument_pair" else WORD_MASK
    for each in route.keys:
        if not each.first <= each.last <= highest:
            raise RegistryError(
                f"back end {backend}, {route.name}: {each.first:#x} to {each.last:#x} are no keys; they go from 0 to {highest:#x}"
            )
