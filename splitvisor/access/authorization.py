# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may make which call: every rpc's declaration (proto/splitvisor/access/v1/access.proto) against the peer's certificate.

A server that speaks TLS has one Authorization, which every call passes. Peers without TLS came through a unix socket or loopback,
where the host has decided who may connect; they may do everything.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import reduce
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf import descriptor_pool

from splitvisor.access.identity import SCHEME, Identity, IdentityError, Role, parse_identity
from splitvisor.errors.problem import ProblemError
from splitvisor.errors.status import refuse
from splitvisor.rpc import access_pb2 as pb

_Context = grpc.aio.ServicerContext[Any, Any]
_Handler = Any


@dataclass(frozen=True)
class Rule:
    """Who may make a call, as access.proto's Access says it."""

    roles: frozenset[Role]
    field: Sequence[str] = ()
    """Names on the way to the request's field with the VM."""
    listed: Sequence[str] = ()
    """Names on the way from the response to its VMs, the repeated field first."""
    restrictions: Mapping[Sequence[str], frozenset[Role]] | None = None


NOBODY = Rule(frozenset())
ANYBODY = Rule(frozenset(Role))
"""With a certificate that has a role."""
OTHER_RULES: Mapping[str, Rule] = {
    "grpc.health.v1.Health": ANYBODY,
    "grpc.reflection.v1alpha.ServerReflection": Rule(frozenset({Role.OPERATOR})),
}
"""Rules of services that are not ours, for all their rpcs."""


def rules(services: Iterable[str]) -> dict[str, Rule]:
    """Return the rule of every rpc of services (full names) by "/service/rpc". An rpc that declares nothing is not there."""
    found = {}
    for service in services:
        for method in descriptor_pool.Default().FindServiceByName(service).methods:
            path = f"/{service}/{method.name}"
            options: Any = method.GetOptions()  # The stubs of extensions do not fit those of protobuf.
            if service in OTHER_RULES:
                found[path] = OTHER_RULES[service]
            elif options.HasExtension(pb.access):
                found[path] = _rule(options.Extensions[pb.access])
    return found


def _rule(access: pb.Access) -> Rule:
    return Rule(
        roles=_roles(access.roles),
        field=_path(access.field),
        listed=_path(access.listed),
        restrictions={_path(each.field): _roles(each.roles) for each in access.restrictions},
    )


def _path(text: str) -> tuple[str, ...]:
    return tuple(text.split(".")) if text else ()


def _roles(numbers: Iterable[pb.Role]) -> frozenset[Role]:
    return frozenset(Role(pb.Role.Name(number).removeprefix("ROLE_").lower().replace("_", "-")) for number in numbers)


class RefusedError(ProblemError):
    """A peer may not make a call; the text is for people."""


def check(rule: Rule, identity: Identity, request: Any) -> None:
    """Raise RefusedError when a peer may not make a call with this request, the first one of a stream."""
    allowed = rule.roles
    for field, roles in (rule.restrictions or {}).items():
        if _value(request, field):
            allowed &= roles
    if identity.role not in allowed:
        raise RefusedError(f"role {identity.role} may not", f"this is for {', '.join(sorted(allowed)) or 'nobody'}")
    if rule.field:
        check_vm(identity, _value(request, rule.field))


def check_vm(identity: Identity, vm: str) -> None:
    """Raise RefusedError when a peer's certificate is not for a VM."""
    if not identity.covers(vm):
        what = f"VM {vm[:63]!r}" if vm else "all VMs"
        raise RefusedError(f"the certificate is for VMs {', '.join(identity.vms)}, not for {what}")


def keep_own(rule: Rule, identity: Identity, response: Any) -> None:
    """Take what belongs to other VMs out of a response that lists."""
    first, *rest = rule.listed
    elements = getattr(response, first)
    kept = [element for element in elements if identity.covers(_value(element, rest))]
    del elements[:]
    elements.extend(kept)


def _value(message: Any, path: Sequence[str]) -> Any:
    return reduce(getattr, path, message)


def peer_identity(context: _Context) -> Identity | None:
    """Return who calls; None for a peer without TLS. Raises RefusedError when its certificate has no identity."""
    properties = context.auth_context()
    if properties.get("transport_security_type") == [b"insecure"]:
        return None
    ours = [uri for uri in properties.get("peer_uri", ()) if uri.startswith(SCHEME.encode())]
    if len(ours) != 1:
        raise RefusedError("the certificate has no role", "issue one with `splitvisor certs issue`")
    try:
        return parse_identity(ours[0].decode(errors="replace"))
    except IdentityError as error:
        raise RefusedError(error.problem.what, error.problem.remedy) from error


class Authorization(grpc.aio.ServerInterceptor):
    """Lets calls through that their rule allows, before anything of the service sees them.

    Args:
        rules: by "/service/rpc"; a call without a rule is refused.
    """

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self._rules = rules

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[_Handler]], handler_call_details: grpc.HandlerCallDetails
    ) -> _Handler:
        """See grpc.aio.ServerInterceptor."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        guard = _Guard(handler_call_details.method, self._rules.get(handler_call_details.method, NOBODY))
        function = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        if not handler.response_streaming:
            guarded: Any = guard.respond(function, handler.request_streaming)
        elif inspect.isasyncgenfunction(function):
            guarded = guard.generate(function, handler.request_streaming)
        else:
            guarded = guard.write(function, handler.request_streaming)
        make = _MAKERS[handler.request_streaming, handler.response_streaming]
        return make(guarded, handler.request_deserializer, handler.response_serializer)


_MAKERS: Mapping[tuple[bool, bool], Callable[..., _Handler]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class _Guard:
    """Wraps the handlers of one rpc, in the three forms that grpc.aio knows."""

    def __init__(self, path: str, rule: Rule) -> None:
        self._path, self._rule = path, rule

    def respond(self, function: Any, streaming: bool) -> Any:
        """For one that returns its response."""

        async def respond(request: Any, context: _Context) -> Any:
            identity, request = await self._admit(request, streaming, context)
            response = await function(request, context)
            if identity is not None and self._rule.listed:
                keep_own(self._rule, identity, response)
            return response

        return respond

    def generate(self, function: Any, streaming: bool) -> Any:
        """For one that yields its responses."""

        async def generate(request: Any, context: _Context) -> AsyncIterator[Any]:
            _, request = await self._admit(request, streaming, context)
            async with aclosing(function(request, context)) as responses:
                async for response in responses:
                    yield response

        return generate

    def write(self, function: Any, streaming: bool) -> Any:
        """For one that writes its responses through its context."""

        async def write(request: Any, context: _Context) -> None:
            _, request = await self._admit(request, streaming, context)
            await function(request, context)

        return write

    async def _admit(self, request: Any, streaming: bool, context: _Context) -> tuple[Identity | None, Any]:
        """Return who calls and what the handler gets as its request. Aborts the call when the peer may not make it."""
        try:
            identity = peer_identity(context)
        except RefusedError as error:
            await self._refuse(grpc.StatusCode.UNAUTHENTICATED, error, context)
        if identity is None:
            return None, request
        first = request
        if streaming:  # Also for a call that is refused anyway: one that ends while it sends may not see why.
            first = await anext(request, None)
            if first is None:
                await self._refuse(grpc.StatusCode.PERMISSION_DENIED, RefusedError("no request named the VM"), context)
            request = _Replayed(first, request)
        try:
            check(self._rule, identity, first)
        except RefusedError as error:
            await self._refuse(grpc.StatusCode.PERMISSION_DENIED, error, context)
        return identity, request

    async def _refuse(self, code: grpc.StatusCode, error: RefusedError, context: _Context) -> NoReturn:
        await refuse(context, code, error.problem.at(self._path.rpartition("/")[2]))


class _Replayed:
    """A stream of requests whose first was taken. Who iterates after that has the stream itself: traps must not cost more."""

    def __init__(self, first: Any, rest: Any) -> None:
        self._first, self._rest = first, rest

    def __aiter__(self) -> Any:
        return self if self._first is not None else aiter(self._rest)

    async def __anext__(self) -> Any:
        first, self._first = self._first, None
        return first if first is not None else await anext(self._rest)
