# SPDX-License-Identifier: GPL-2.0-or-later
"""Between a back end's declarations and the messages of the trap stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence

import structlog

from splitvisor.declarations.calls import Call, Hypercall, Key, Operand, Result, RtasCall
from splitvisor.declarations.guest_memory import GuestAddressError
from splitvisor.declarations.session import Session
from splitvisor.declarations.state import StateCollector, StateError, parts
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.connection import ContractError

log = structlog.get_logger()


def route_message(call: Hypercall | RtasCall, session: Session) -> pb.Route:
    """The wire form of a declaration."""
    route = pb.Route(
        name=call.call_name,
        operands=[_operand_message(operand) for operand in call.operands],
        unavailable_result=call.unavailable_result,
    )
    if call.everybody:
        route.selector.everybody = True
    elif call.key is not None:
        route.selector.CopyFrom(_selector_message(call.key, call.failure(parameter=True)))
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
            )
        )
    return route


def _selector_message(key: Key, refusal: Result) -> pb.Selector:
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


def route_keys(calls: Sequence[Hypercall | RtasCall], session: Session) -> Iterator[pb.RouteKeys]:
    """The keys that a session owns now, of every call that has a key or is posted for some."""
    for number, call in enumerate(calls):
        posted = call.posted.key_values(session) if isinstance(call, Hypercall) and call.posted is not None else None
        if call.key is not None or posted is not None:
            keys = () if call.key is None else _key_ranges(call.key, session)
            yield pb.RouteKeys(route=number, keys=keys, posted_keys=posted)


def mirror_messages(calls: Sequence[Hypercall | RtasCall], session: Session) -> list[pb.Mirror]:
    """The contents of every array that cpu_service may answer calls from."""
    mirrored = [(call.name, call.mirrored) for call in calls if isinstance(call, RtasCall) and call.mirrored is not None]
    mirrors = [pb.Mirror(name=name, contents=declared.contents(session)) for name, declared in mirrored]
    return [mirror for mirror in mirrors if mirror.contents]


def _operand_message(operand: Operand) -> pb.OperandSpec:
    spec = pb.OperandSpec(size=operand.size, string=operand.string)
    if operand.word is not None:
        spec.word.operand, spec.word.index = operand.word
    else:
        spec.argument = operand.argument or 0
    return spec


def declared_call(calls: Sequence[Hypercall | RtasCall], vcpus: int, trap: pb.Trap) -> Hypercall | RtasCall:
    """The declaration of the call that a trap makes. Raises ContractError for a trap that does not fit what was offered."""
    if trap.route >= len(calls):
        raise ContractError(f"trap names route {trap.route} of {len(calls)}")
    if trap.vcpu >= vcpus:
        raise ContractError(f"trap of vCPU {trap.vcpu} of {vcpus}")
    declared = calls[trap.route]
    if isinstance(declared, Hypercall) and len(trap.arguments) != declared.arguments:
        raise ContractError(f"{declared.call_name} with {len(trap.arguments)} arguments; the offer says {declared.arguments}")
    return declared


def counts_fit(declared: RtasCall, call: Call) -> bool:
    """Whether an RTAS caller passes as many words, and has room for as many, as the call wants."""
    arguments_fit = declared.arguments is None or declared.arguments == len(call.arguments)
    return arguments_fit and (declared.returns is None or declared.returns <= call.returns)


def failed(declared: Hypercall | RtasCall, error: Exception) -> Result:
    """What the guest gets when a handler raised; the log gets the reason."""
    if isinstance(error, GuestAddressError):
        log.info("guest gave a bad address", call=declared.call_name, reason=str(error))
        return declared.failure(parameter=True)
    log.error("handler failed", call=declared.call_name, exc_info=error)
    return declared.failure(parameter=False)


def reply_message(trap: pb.Trap, call: Call, declared: Hypercall | RtasCall, result: Result | int) -> pb.Reply:
    """The reply to a trap, without what the call wrote to memory."""
    reply = pb.Reply(vcpu=trap.vcpu, sequence=trap.sequence, effects=call.effects)
    if isinstance(result, Result):
        reply.result = result.result
        reply.outputs.extend(result.outputs)
        reply.returns.extend(word & 0xFFFF_FFFF for word in result.returns)
    elif isinstance(declared, RtasCall):
        reply.returns.append(result & 0xFFFF_FFFF)
    else:
        reply.result = result
    return reply


def interrupt_message(source: int) -> pb.AttachResponse:
    """A pulse of an interrupt source."""
    return pb.AttachResponse(interrupt=pb.Interrupt(source=source))


async def saved_states(number: int, session: Session) -> AsyncIterator[pb.SavedState]:
    """Yield the answer to a save in parts; what goes wrong is said in the last one."""
    try:
        collector = StateCollector(session.vm.name)
        collector.add(await session.save())
    except StateError as error:
        yield pb.SavedState(id=number, last=True, error=str(error))
    except Exception as error:
        log.exception("state not saved", vm=session.vm.name)
        yield pb.SavedState(id=number, last=True, error=f"it failed: {error}")
    else:
        for data, last in parts(collector.state()):
            yield pb.SavedState(id=number, data=data, last=last)
