# SPDX-License-Identifier: GPL-2.0-or-later
"""Who owns each hypercall and RTAS call: a local handler or a remote back end, registered at run time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cpu_service.hypercalls.declarations import LocalHypercall, LocalRtas
from cpu_service.link.backend_link import BackendLink
from splitvisor.papr.hcall import Hcall
from splitvisor.papr.rtas import FIRST_FREE_TOKEN, TOKENS
from splitvisor.rpc import trap_pb2 as pb

LOCAL = "local"
MAX_HYPERCALL_TOKEN = 0xFFFF
MAX_ARGUMENTS = 9
MAX_OPERAND_BYTES = 64 << 10


class RegistryError(Exception):
    """A call cannot be registered: it has an owner already, or its route makes no sense."""


@dataclass(frozen=True)
class RemoteCall:
    """A call that a back end owns."""

    link: BackendLink
    index: int
    """Its place in the back end's offer."""
    route: pb.Route
    posted_keys: frozenset[int]

    @property
    def name(self) -> str:
        """As PAPR spells it."""
        return self.route.name


@dataclass(frozen=True)
class RegisteredRtas:
    """An RTAS call with the token that the device tree publishes."""

    token: int
    name: str
    owner: LocalRtas | RemoteCall


class Registry:
    """Every hypercall token and RTAS call of a machine has exactly one owner, or none.

    Args:
        known_tokens: RTAS tokens by name that a guest knows already, having been saved.
    """

    def __init__(self, known_tokens: Mapping[str, int] | None = None) -> None:
        self.local: dict[int, LocalHypercall] = {}
        self.remote: dict[int, RemoteCall] = {}
        self.rtas: dict[int, RegisteredRtas] = {}
        self._rtas_tokens: dict[str, int] = {}
        self._known_tokens = known_tokens or {}
        self._next_free_token = max((FIRST_FREE_TOKEN - 1, *self._known_tokens.values())) + 1

    def add_local(self, calls: Iterable[LocalHypercall | LocalRtas]) -> None:
        """Register calls that cpu_service handles itself. Raises RegistryError."""
        for call in calls:
            if isinstance(call, LocalRtas):
                self._add_rtas(call.name, call, LOCAL)
            else:
                self._check_free(call.token, call.call_name, LOCAL)
                self.local[call.token] = call

    def add_offer(self, link: BackendLink, offer: pb.Offer) -> None:
        """Register what a back end offers. Raises RegistryError and then leaves the registry unfit for use."""
        for index, route in enumerate(offer.routes):
            _check_route(route, link.name)
            call = RemoteCall(link, index, route, frozenset(route.posted.key_values))
            if route.kind == pb.CALL_KIND_RTAS:
                self._add_rtas(route.name, call, link.name)
            else:
                self._check_free(route.token, route.name, link.name)
                self.remote[route.token] = call

    def rtas_calls(self) -> Sequence[RegisteredRtas]:
        """Every RTAS call by token."""
        return sorted(self.rtas.values(), key=lambda call: call.token)

    def hypercalls(self) -> Sequence[int]:
        """Every owned hypercall token, ascending."""
        return sorted([*self.local, *self.remote])

    def _add_rtas(self, name: str, owner: LocalRtas | RemoteCall, owner_name: str) -> None:
        known = self._rtas_tokens.get(name)
        if known is not None:
            raise RegistryError(f"RTAS call {name!r} is claimed by {self._owner_of(self.rtas[known].owner)} and by {owner_name}")
        token = self._known_tokens.get(name, TOKENS.get(name))
        if token is None:
            token = self._next_free_token
            self._next_free_token += 1
        self._rtas_tokens[name] = token
        self.rtas[token] = RegisteredRtas(token, name, owner)

    def _check_free(self, token: int, name: str, claimant: str) -> None:
        owner = self.local.get(token) or self.remote.get(token)
        if owner is not None or token == Hcall.H_RTAS:
            known = "the RTAS dispatcher" if owner is None else self._owner_of(owner)
            raise RegistryError(f"hypercall {name} ({token:#x}) is claimed by {known} and by {claimant}")

    @staticmethod
    def _owner_of(owner: LocalHypercall | LocalRtas | RemoteCall) -> str:
        return owner.link.name if isinstance(owner, RemoteCall) else LOCAL


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
    if route.HasField("posted"):
        used = max(route.posted.key_argument, route.posted.size_argument)
        if route.kind != pb.CALL_KIND_HYPERCALL or used >= route.arguments:
            raise RegistryError(f"{where}: a posted call is a hypercall whose key and size are among its arguments")
