# SPDX-License-Identifier: GPL-2.0-or-later
"""Channels to services that are slow to answer, on a busy host."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from splitvisor.net.channels import CONNECT_MS, SERVICE_OPTIONS, ChannelOptions, open_channel
from splitvisor.terminal.link import CHANNEL_OPTIONS as TERMINAL_OPTIONS
from tests.services import Service

STOPPED_SECONDS = CONNECT_MS / 1000 / 4
"""Longer than any pause of gRPC's between attempts."""


@pytest.mark.parametrize("options", [SERVICE_OPTIONS, TERMINAL_OPTIONS], ids=["service", "terminal"])
def test_a_call_reaches_a_service_that_stood_still(short_path: Path, options: ChannelOptions) -> None:
    """The kernel takes the connection at once, but nobody says hello: that is slow, not unreachable."""
    service = Service("hcall", short_path, "--store", str(short_path / "trees.sqlite"))
    try:
        service.process.send_signal(signal.SIGSTOP)
        waker = threading.Timer(STOPPED_SECONDS, service.process.send_signal, (signal.SIGCONT,))
        waker.start()
        with open_channel(service.address, options) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
        waker.join()
    finally:
        service.kill()
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_service_that_is_not_there_is_unreachable_at_once(short_path: Path) -> None:
    with open_channel(f"unix:{short_path}/nobody.sock", SERVICE_OPTIONS) as channel, pytest.raises(grpc.RpcError) as caught:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
