# SPDX-License-Identifier: GPL-2.0-or-later
"""How this program's processes connect to each other: every channel is opened here, so that who may be spoken to, and with which
credentials, is decided once.

Addresses are those of splitvisor/net/addresses.py. A channel with TLS takes new certificate files for its next call.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import grpc
import grpc.aio

from splitvisor.errors.status import problem_in
from splitvisor.limits import MESSAGE_BYTES
from splitvisor.net.addresses import parse_address

ChannelOptions = Sequence[tuple[str, int]]
CONNECT_MS = 2000
"""How long one attempt to connect may take. gRPC calls it min_reconnect_backoff_ms, but an attempt that fails sooner is repeated
sooner; with less, a busy peer on a busy host counts as unreachable."""

DIRECT: ChannelOptions = (("grpc.enable_http_proxy", 0),)
"""For every channel: http_proxy, https_proxy and grpc_proxy of the environment are for the Internet, not for services that an
address names, on this host or on others; gRPC would ask them for loopback and for TLS, too."""

SERVICE_OPTIONS: ChannelOptions = (
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 1000),
    ("grpc.http2.ping_timeout_ms", 1000),  # Without it a stopped peer is never noticed.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_retries", 0),
    # gRPC's own pause between attempts grows to minutes; a service that is back must be found at once.
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", CONNECT_MS),
    ("grpc.max_reconnect_backoff_ms", 250),
)
"""For channels of one service to another: a dead or stopped peer is noticed within seconds, and found when it is back."""

_CLOSED = (
    "it closed the connection: it requires a valid certificate of its own authority (tls:HOST:PORT; see its log), or just ended"
)
_OTHER_HOST = "its certificate is for another host; issue one with --host HOST as in the address"
_NO_SERVICE = "its certificate is not a service's; issue one with --role cpu or backend"
_EXPLANATIONS: Sequence[tuple[str, str]] = (
    (
        "before receiving SETTINGS frame",
        "it takes connections and does not answer; is it a service, and not stopped?",
    ),
    ("Failed parsing HTTP/2", "it does not speak gRPC; give the address that a service listens on"),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS; give the address that it listens on, or start it with --tls"),
    ("Hostname Verification Check failed", _OTHER_HOST),
    ("Hostname mismatch", _OTHER_HOST),
    ("IP address mismatch", _OTHER_HOST),
    ("certificate has expired", "its certificate has expired; issue a new one"),
    ("certificate is not yet valid", "its certificate is not valid yet; check both hosts' clocks"),
    ("unsupported certificate purpose", _NO_SERVICE),
    ("unsuitable certificate purpose", _NO_SERVICE),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is from another authority; use certificates of one `splitvisor certs init`"),
    ("Socket closed", _CLOSED),
    ("Connection reset by peer", _CLOSED),
    ("_ALERT_", _CLOSED),
    ("UNEXPECTED_EOF", _CLOSED),
)
"""What the messages of gRPC and OpenSSL about a failed connection mean, the particular ones first."""
_LAST_ERROR = re.compile(r"last error: [A-Z_]+: (?:ipv[46]|unix):[^ ]+: (.*)", re.DOTALL)


def open_channel(target: str, options: ChannelOptions = ()) -> grpc.Channel:
    """Return a channel to a service. Raises AddressError when the target must not be spoken to, or not without a certificate."""
    address, options = parse_address(target), (*options, *DIRECT)
    if not address.tls:
        return grpc.insecure_channel(address.target, options=options)
    from splitvisor.net.renewing_channel import RenewingChannel  # most processes have no use for it

    return RenewingChannel(address, options)


def open_aio_channel(target: str, options: ChannelOptions = ()) -> grpc.aio.Channel:
    """Return a channel for asyncio to a service. Raises AddressError as open_channel() does."""
    address, options = parse_address(target), (*options, *DIRECT)
    if not address.tls:
        return grpc.aio.insecure_channel(address.target, options=options)
    from splitvisor.net.renewing_channel import RenewingAioChannel  # see above

    return RenewingAioChannel(address, options)


def explain(error: grpc.RpcError, target: str = "") -> str:
    """Return in one line why a call failed. gRPC's own text about a failed connection is long and says little.

    Args:
        error: raised by a call.
        target: named when there was no connection.
    """
    problem = problem_in(error)
    if problem.reason or "failed to connect" not in problem.what:
        return str(problem)
    found = _LAST_ERROR.search(problem.what)
    reason = explain_failure(problem.what, found[1] if found else problem.what)
    return f"{target}: {reason}" if target else reason


def explain_failure(text: str, otherwise: str = "") -> str:
    """Return the meaning of a message about a failed handshake; if it is unknown, the message or its replacement."""
    return next((meaning for sign, meaning in _EXPLANATIONS if sign in text), otherwise or text)
