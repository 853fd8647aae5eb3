# SPDX-License-Identifier: GPL-2.0-or-later
"""What a back end offers, as messages: the calls that a session declares, its nodes, its mirrored arrays, and what it has now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from splitvisor.declarations.calls import Hypercall, Key, Operand, Result, RtasCall
from splitvisor.declarations.session import Session
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.features import offer_features


def offer_message(backend: str, session: Session, *, ram_mapped: bool) -> pb.Offer:
    """The first message of a connection."""
    routes = [_route(call, session) for call in session.calls]
    transports = session.transports()
    return pb.Offer(
        backend=backend,
        routes=routes,
        nodes=session.nodes(),
        ram_mapped=ram_mapped,
        mirrors=mirror_messages(session.calls, session),
        features=offer_features(routes, transports, pauses=session.pauses),
        transports=transports,
    )


def inventory_message(session: Session) -> pb.AttachResponse:
    """What the session has now."""
    inventory = pb.Inventory(
        nodes=session.nodes(), devices=session.inventory(), keys=_route_keys(session), transports=session.transports()
    )
    return pb.AttachResponse(inventory=inventory)


def _route(call: Hypercall | RtasCall, session: Session) -> pb.Route:
    """The wire form of a declaration."""
    route = pb.Route(
        name=call.call_name,
        operands=[_operand(operand) for operand in call.operands],
        unavailable_result=call.unavailable_result,
    )
    if call.everybody:
        route.selector.everybody = True
    elif call.key is not None:
        route.selector.CopyFrom(_selector(call.key, call.failure(parameter=True)))
        route.keys.extend(_key_ranges(call.key, session))
    if isinstance(call, RtasCall):
        route.kind = pb.CALL_KIND_RTAS
        return route
    route.kind = pb.CALL_KIND_HYPERCALL
    route.token = call.token
    route.arguments = call.arguments
    if call.posted is not None:
        route.posted.CopyFrom(
            pb.PostedPolicy(
                credit_bytes=call.posted.credit_bytes,
                key_argument=call.posted.key_argument,
                key_values=call.posted.key_values(session),
                size_argument=call.posted.size_argument,
                max_size=call.posted.max_size,
                call_bytes=call.posted.call_bytes,
                at_once=call.posted.at_once,
                without_credit=pb.WITHOUT_CREDIT_WAIT if call.posted.waits_for_credit else pb.WITHOUT_CREDIT_UNSPECIFIED,
            )
        )
        if (buffers := call.posted.buffers) is not None:
            route.buffers.CopyFrom(
                pb.DescribedBuffers(
                    first=buffers.first,
                    count=buffers.count,
                    min_each=buffers.min_each,
                    alignment=buffers.alignment,
                    min_bytes=buffers.min_bytes,
                    max_bytes=buffers.max_bytes,
                )
            )
    return route


def _selector(key: Key, refusal: Result) -> pb.Selector:
    """The wire form of a key; refusal: what a bad argument gets, and so does a key that nobody owns."""
    refused = refusal.returns[0] if refusal.returns else refusal.result
    result = refused if key.no_owner_result is None else key.no_owner_result
    selector = pb.Selector(no_owner_result=result)
    if key.word is not None:
        selector.word.operand, selector.word.index = key.word
    elif key.argument_pair is not None:
        selector.argument_pair = key.argument_pair
    else:
        selector.argument = key.argument
    return selector


def _key_ranges(key: Key, session: Session) -> Iterator[pb.KeyRange]:
    for each in key.keys(session):
        if isinstance(each, int):
            yield pb.KeyRange(first=each, last=each)
        elif each:
            yield pb.KeyRange(first=each[0], last=each[-1])


def _route_keys(session: Session) -> Iterator[pb.RouteKeys]:
    """The keys that a session owns now, of every call that has a key or is posted for some."""
    for number, call in enumerate(session.calls):
        posted = call.posted.key_values(session) if isinstance(call, Hypercall) and call.posted is not None else None
        if call.key is not None or posted is not None:
            keys = () if call.key is None else _key_ranges(call.key, session)
            yield pb.RouteKeys(route=number, keys=keys, posted_keys=posted)


def mirror_messages(calls: Sequence[Hypercall | RtasCall], session: Session) -> list[pb.Mirror]:
    """The contents of every array that cpu_service may answer calls from."""
    mirrored = [(call.name, call.mirrored) for call in calls if isinstance(call, RtasCall) and call.mirrored is not None]
    mirrors = [pb.Mirror(name=name, contents=declared.contents(session)) for name, declared in mirrored]
    return [mirror for mirror in mirrors if mirror.contents]


def _operand(operand: Operand) -> pb.OperandSpec:
    spec = pb.OperandSpec(size=operand.size, string=operand.string)
    if operand.word is not None:
        spec.word.operand, spec.word.index = operand.word
    else:
        spec.argument = operand.argument or 0
    return spec
