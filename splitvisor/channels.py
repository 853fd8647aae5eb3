# SPDX-License-Identifier: GPL-2.0-or-later
"""How this program's processes connect to each other: every channel is opened here, so that who may be spoken to, and with which
credentials, is decided once.

Addresses are those of splitvisor/addresses.py. A channel with TLS takes new certificate files for its next call.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import grpc
import grpc.aio

from splitvisor.addresses import parse_address

ChannelOptions = Sequence[tuple[str, int]]

_NOT_ACCEPTED = "it wants a certificate (tls:HOST:PORT) of its own authority that has not expired (see its log), or just ended"
_EXPLANATIONS: Sequence[tuple[str, str]] = (
    ("WRONG_VERSION_NUMBER", "it does not speak TLS; give its address as it listens there, or start it with --tls"),
    ("Hostname Verification Check failed", "its certificate is for another host; issue one with --host HOST as in the address"),
    ("certificate has expired", "its certificate has expired; issue a new one"),
    ("certificate is not yet valid", "its certificate does not hold yet; check both hosts' clocks"),
    ("unsupported certificate purpose", "its certificate is not a service's; issue one with --role cpu or backend"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is from another authority; use certificates of one `splitvisor certs init`"),
    ("Socket closed", f"it closed the connection: {_NOT_ACCEPTED}"),
    ("Connection reset by peer", f"it closed the connection: {_NOT_ACCEPTED}"),
)
"""What gRPC's messages about a failed handshake mean, the particular ones first."""
_LAST_ERROR = re.compile(r"last error: [A-Z_]+: (?:ipv[46]|unix):[^ ]+: (.*)", re.DOTALL)


def open_channel(target: str, options: ChannelOptions = ()) -> grpc.Channel:
    """Return a channel to a service. Raises AddressError when the target must not be spoken to, or not without a certificate."""
    address = parse_address(target)
    if not address.tls:
        return grpc.insecure_channel(address.target, options=options)
    from splitvisor.renewing_channel import RenewingChannel  # most processes have no use for it

    return RenewingChannel(address, options)


def open_aio_channel(target: str, options: ChannelOptions = ()) -> grpc.aio.Channel:
    """Return a channel for asyncio to a service. Raises AddressError as open_channel() does."""
    address = parse_address(target)
    if not address.tls:
        return grpc.aio.insecure_channel(address.target, options=options)
    from splitvisor.renewing_channel import RenewingAioChannel  # see above

    return RenewingAioChannel(address, options)


def explain(error: grpc.RpcError, target: str = "") -> str:
    """Return in one line why a call failed. gRPC's own text about a failed connection is long and says little.

    Args:
        error: raised by a call.
        target: named when there was no connection.
    """
    details = str(error.details() or error.code().name.lower().replace("_", " "))
    if "failed to connect" not in details:
        return details
    found = _LAST_ERROR.search(details)
    reason = next((text for sign, text in _EXPLANATIONS if sign in details), found[1] if found else details)
    return f"{target}: {reason}" if target else reason
