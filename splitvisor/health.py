# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor health ADDRESS`: the standard gRPC health check, for container engines and scripts.

It runs every few seconds beside a guest, so it loads gRPC and nothing else: no command line library, no generated code.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from splitvisor.addresses import AddressError
from splitvisor.tls_flags import add_tls_flags, use_tls_flags

SERVING, NOT_SERVING, USAGE = 0, 1, 2
"""Exit statuses."""
CHECK = "/grpc.health.v1.Health/Check"
_SERVING_MESSAGE = b"\x08\x01"
"""HealthCheckResponse with status (field 1) SERVING (1)."""


def check(address: str, timeout: float) -> str:
    """Return why the services at an address cannot be used; an empty text when they serve. Raises AddressError.

    Args:
        address: a gRPC target.
        timeout: seconds to wait for the answer.
    """
    import grpc

    from splitvisor.channels import open_channel

    with open_channel(address) as channel:
        call = channel.unary_unary(CHECK, request_serializer=bytes, response_deserializer=bytes)
        try:
            # An empty HealthCheckRequest asks about the server as a whole.
            answer = call(b"", timeout=timeout, wait_for_ready=True)
        except grpc.RpcError as error:
            late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            return f"no answer within {timeout:g} s; is it running?" if late else error.details() or error.code().name
    return "" if answer == _SERVING_MESSAGE else "not serving"


def main(arguments: Sequence[str]) -> int:
    """Check, and return the exit status: 0 serving, 1 not, 2 bad usage."""
    parser = argparse.ArgumentParser(prog="splitvisor health", description="Ask a service whether it serves (grpc.health.v1).",
                                     epilog="Exit status: 0 it serves, 1 it does not or does not answer, 2 bad usage.")
    parser.add_argument("address", metavar="ADDRESS", help="unix:/path or host:port")
    parser.add_argument("--timeout", type=float, default=3.0, metavar="S", help="how long to wait (default: 3)")
    add_tls_flags(parser)
    parsed = parser.parse_args(arguments)
    use_tls_flags(vars(parsed))
    try:
        wrong = check(parsed.address, parsed.timeout)
    except AddressError as error:
        print(f"splitvisor health: {error}", file=sys.stderr)
        return USAGE
    if wrong:
        print(f"splitvisor health: {parsed.address}: {wrong}", file=sys.stderr)
        return NOT_SERVING
    return SERVING
