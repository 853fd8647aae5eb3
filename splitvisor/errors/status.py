# SPDX-License-Identifier: GPL-2.0-or-later
"""Problems in the end of an rpc: a status code and a sentence, as gRPC has them, with a google.rpc.ErrorInfo beside the sentence.

ErrorInfo.reason is the kind of problem, ErrorInfo.domain DOMAIN, and ErrorInfo.metadata has `what` and `remedy`, which together
are the sentence. docs/contracts.md says the same for clients in other languages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from splitvisor.errors.problem import Problem, problem_of

if TYPE_CHECKING:
    from google.rpc import error_details_pb2

DOMAIN = "splitvisor"
DETAILS = "grpc-status-details-bin"
"""The trailer that has the ErrorInfo."""
NO_SUCH_MACHINE = "NO_SUCH_MACHINE"
"""Reason: the machine that a request names is not at this cpu_service."""
TEXT_BYTES = 600
"""Of what is wrong, and of the remedy: a call's trailers must fit into 8 KiB, and what was asked for may be quoted in them."""


async def refuse(context: Any, code: grpc.StatusCode, problem: Problem | Exception | str, reason: str = "") -> NoReturn:
    """End a call of grpc.aio with a problem.

    Args:
        context: of the call.
        code: for gRPC.
        problem: its text is cut at TEXT_BYTES.
        reason: the kind of problem, when the problem does not say; without either it is the code's name.
    """
    # Few calls are refused.
    from google.protobuf import any_pb2
    from google.rpc import error_details_pb2, status_pb2
    from grpc_status import rpc_status

    if isinstance(problem, str):
        problem = Problem(problem)
    elif isinstance(problem, Exception):
        problem = problem_of(problem)
    shown = Problem(_cut(problem.what), _cut(problem.remedy))
    info = error_details_pb2.ErrorInfo(reason=reason or problem.reason or code.name, domain=DOMAIN, metadata={"what": shown.what})
    if shown.remedy:
        info.metadata["remedy"] = shown.remedy
    detail = any_pb2.Any()
    detail.Pack(info)
    status = rpc_status.to_status(status_pb2.Status(code=code.value[0], message=str(shown), details=[detail]))
    await context.abort(status.code, status.details, status.trailing_metadata)
    raise AssertionError("abort() raises")


def problem_in(error: grpc.RpcError) -> Problem:
    """Return the problem that a call ended with. Without an ErrorInfo of DOMAIN it is gRPC's own text, and has no reason."""
    info = _error_info(error)
    if info is None:
        return Problem(str(error.details() or error.code().name.lower().replace("_", " ")))
    return Problem(info.metadata["what"], info.metadata["remedy"], info.reason)


def _error_info(error: grpc.RpcError) -> error_details_pb2.ErrorInfo | None:
    call: Any = error  # The stubs do not know that it is a Call too.
    if not any(key == DETAILS for key, _ in call.trailing_metadata() or ()):
        return None
    # Slow to load, and a service that is not there sends none.
    from google.protobuf.message import DecodeError
    from google.rpc import error_details_pb2
    from grpc_status import rpc_status

    info = error_details_pb2.ErrorInfo()
    try:
        status = rpc_status.from_call(call)
        for detail in status.details if status is not None else ():
            if detail.Is(info.DESCRIPTOR) and detail.Unpack(info) and info.domain == DOMAIN:
                return info
    except (ValueError, DecodeError):  # A peer may send anything, also the status of another call.
        return None
    return None


def _cut(text: str) -> str:
    return text.encode()[:TEXT_BYTES].decode(errors="ignore")
