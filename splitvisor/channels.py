# SPDX-License-Identifier: GPL-2.0-or-later
"""How this program's processes connect to each other: every channel is opened here, so that who may be spoken to, and with which
credentials, is decided once.
"""

from __future__ import annotations

from collections.abc import Sequence

import grpc
import grpc.aio

from splitvisor.addresses import check_address

ChannelOptions = Sequence[tuple[str, int]]


def open_channel(target: str, options: ChannelOptions = ()) -> grpc.Channel:
    """Return a channel to a service. Raises AddressError when the target must not be spoken to."""
    return grpc.insecure_channel(check_address(target), options=options)


def open_aio_channel(target: str, options: ChannelOptions = ()) -> grpc.aio.Channel:
    """Return a channel for asyncio to a service. Raises AddressError when the target must not be spoken to."""
    return grpc.aio.insecure_channel(check_address(target), options=options)
