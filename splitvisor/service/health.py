# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor health ADDRESS`: the standard gRPC health check, for container engines and scripts.

It runs every few seconds beside a guest, so it loads little: for a unix socket that serves not even gRPC, else gRPC and nothing
more, no command line library and no generated code.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from splitvisor.service.health_probe import CHECK, SERVING_MESSAGE, serves

if TYPE_CHECKING:
    from argparse import ArgumentParser

SERVING, NOT_SERVING, USAGE = 0, 1, 2
"""Exit statuses."""
TIMEOUT_SECONDS = 10.0
"""For a service on a busy host; one that answers does so in milliseconds."""
LONGEST_SECONDS = 1e9
"""The clocks of gRPC take no more than ten times that."""
WHY_SECONDS = 0.2
_LATE = "no answer within {:g} s; is it running?"
_UNIX = "unix:"


def check(address: str, timeout: float) -> str:
    """Return why the services at an address cannot be used; an empty text when they serve. Raises AddressError.

    Args:
        address: a gRPC target.
        timeout: seconds to wait for the answer.
    """
    import grpc

    from splitvisor.net.channels import explain, open_channel

    with open_channel(address) as channel:
        call = channel.unary_unary(CHECK, request_serializer=bytes, response_deserializer=bytes)
        try:
            # An empty HealthCheckRequest asks about the server as a whole.
            answer = call(b"", timeout=timeout, wait_for_ready=True)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                return explain(error)
            try:
                # Who waits for a connection is not told why there is none; who does not wait is.
                answer = call(b"", timeout=WHY_SECONDS)
            except grpc.RpcError as reason:
                known = reason.code() is grpc.StatusCode.UNAVAILABLE
                return f"not within {timeout:g} s: {explain(reason)}" if known else _LATE.format(timeout)
    return "" if answer == SERVING_MESSAGE else "not serving"


def main(arguments: Sequence[str]) -> int:
    """Check, and return the exit status: 0 serving, 1 not, 2 bad usage."""
    if len(arguments) == 1 and arguments[0].startswith(f"{_UNIX}/"):
        try:
            if serves(arguments[0].removeprefix(_UNIX), TIMEOUT_SECONDS):
                return SERVING
        except TimeoutError:
            return _tell(arguments[0], _LATE.format(TIMEOUT_SECONDS))
    # For everything else, and for what to say.
    from splitvisor.net.addresses import AddressError
    from splitvisor.net.tls_flags import use_tls_flags

    parsed = make_parser().parse_args(arguments)
    use_tls_flags(vars(parsed))
    try:
        wrong = check(parsed.address, parsed.timeout)
    except AddressError as error:
        print(f"splitvisor health: {error}", file=sys.stderr)
        return USAGE
    return _tell(parsed.address, wrong) if wrong else SERVING


def make_parser() -> ArgumentParser:
    """Return what reads the command's flags."""
    from splitvisor.net.tls_flags import add_tls_flags
    from splitvisor.service.arguments import StrictParser

    parser = StrictParser(
        prog="splitvisor health",
        description="Check the health of a service (grpc.health.v1).",
        epilog="Exit status: 0 it is healthy, 1 it is not or does not answer, 2 bad usage.",
    )
    parser.add_argument("address", metavar="ADDRESS", help="unix:/path or host:port")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=TIMEOUT_SECONDS,
        metavar="S",
        help=f"how long to wait (default: {TIMEOUT_SECONDS:.0f})",
    )
    add_tls_flags(parser)
    return parser


def _seconds(text: str) -> float:
    """Read a time limit; what is not a number compares with none."""
    from argparse import ArgumentTypeError

    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if 0 < number <= LONGEST_SECONDS:
        return number
    raise ArgumentTypeError(f"{text!r} is not a number of seconds above 0, up to {LONGEST_SECONDS:.0f}")


def _tell(address: str, wrong: str) -> int:
    print(f"splitvisor health: {address}: {wrong}", file=sys.stderr)
    return NOT_SERVING
