# SPDX-License-Identifier: GPL-2.0-or-later
"""A problem's two halves and its kind, in an exception, and through an rpc of a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import any_pb2
from google.rpc import status_pb2

from splitvisor.errors.problem import Problem, ProblemError, problem_of
from splitvisor.errors.status import TEXT_BYTES, problem_in, refuse
from splitvisor.net.addresses import AddressError
from splitvisor.net.channels import explain

METHOD = "/a.test.Service/Fail"
SECONDS = 10.0

Context = grpc.aio.ServicerContext[Any, Any]


def wrong_inside() -> bytes:
    """A good status of the call whose ErrorInfo is none."""
    detail = any_pb2.Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff")
    made: bytes = status_pb2.Status(code=5, message="gone; really", details=[detail]).SerializeToString()
    return made


class NoSlotError(ProblemError, ValueError):
    """Two words and a base of Python's."""


async def called(refusal: Callable[[Context], Awaitable[None]]) -> grpc.aio.AioRpcError:
    """How a call ends whose handler refuses it."""

    async def fail(request: bytes, context: Context) -> bytes:
        await refusal(context)
        return b""

    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {"Fail": grpc.unary_unary_rpc_method_handler(fail)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.test.Service", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await channel.unary_unary(METHOD, bytes, bytes)(b"", timeout=SECONDS)
    finally:
        await server.stop(None)
    return ended.value


def refused(code: grpc.StatusCode, problem: Problem | Exception | str, reason: str = "") -> grpc.aio.AioRpcError:
    return asyncio.run(called(lambda context: refuse(context, code, problem, reason)))


def test_a_problem_is_one_line_and_keeps_its_halves() -> None:
    error = NoSlotError("all 4 slots are taken", "remove a device first")
    assert str(error) == "all 4 slots are taken; remove a device first"
    assert problem_of(error) == Problem("all 4 slots are taken", "remove a device first", "NO_SLOT")
    assert str(error.problem.at("devices[3]")) == "devices[3]: all 4 slots are taken; remove a device first"
    assert problem_of(ValueError("is wrong; or so")) == Problem("is wrong; or so")
    assert issubclass(AddressError, ProblemError)


def test_a_refusal_arrives_as_it_was_said() -> None:
    error = refused(grpc.StatusCode.RESOURCE_EXHAUSTED, NoSlotError("all slots; the 4 of them; are taken", "remove a device"))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == "all slots; the 4 of them; are taken; remove a device"
    assert problem_in(error) == Problem("all slots; the 4 of them; are taken", "remove a device", "NO_SLOT")
    assert explain(error) == error.details()


def test_a_reason_may_be_given_and_is_the_codes_name_otherwise() -> None:
    assert problem_in(refused(grpc.StatusCode.NOT_FOUND, "no such VM", "NO_SUCH_VM")) == Problem("no such VM", "", "NO_SUCH_VM")
    assert problem_in(refused(grpc.StatusCode.NOT_FOUND, ValueError("no"))) == Problem("no", "", "NOT_FOUND")


@pytest.mark.parametrize("letter", ["x", "\N{GREEK SMALL LETTER BETA}", "\N{GRINNING FACE}"])
def test_what_a_client_sent_may_be_quoted_however_long_it_is(letter: str) -> None:
    problem = problem_in(refused(grpc.StatusCode.NOT_FOUND, Problem(letter * 5_000_000, letter * 5_000_000)))
    assert problem.what == problem.remedy == letter * (TEXT_BYTES // len(letter.encode()))


@pytest.mark.parametrize("details", [b"", b"\xff", b"\x08\x05\x12\x03no!", wrong_inside()])
def test_a_status_that_nobody_of_ours_made_is_read_as_grpcs_own(details: bytes) -> None:
    """Empty, no message at all, one that says something else than the call, and one with rubbish inside."""

    async def abort(context: Context) -> None:
        await context.abort(grpc.StatusCode.NOT_FOUND, "gone; really", (("grpc-status-details-bin", details),))

    assert problem_in(asyncio.run(called(abort))) == Problem("gone; really")
