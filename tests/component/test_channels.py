# SPDX-License-Identifier: GPL-2.0-or-later
"""Channels to services that are slow to answer, on a busy host."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from splitvisor.access.identity import Role
from splitvisor.net.channels import CONNECT_MS, SERVICE_OPTIONS, ChannelOptions, open_aio_channel, open_channel
from splitvisor.observe.call_times import ResultClass
from splitvisor.terminal.link import CHANNEL_OPTIONS as TERMINAL_OPTIONS
from splitvisor.trap.tracing import start_tracing
from tests.certificates import Authority
from tests.guests.harness import ROOT
from tests.services import Service
from tests.tls_services import TlsService

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


PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
ASKED = health_pb2.HealthCheckRequest()


@contextmanager
def unasked_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Name a proxy in the environment in every way; it must not be asked."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        for name in PROXIES:
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("no_grpc_proxy", raising=False)
        yield
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()


async def check_aio(address: str) -> health_pb2.HealthCheckResponse:
    async with open_aio_channel(address, SERVICE_OPTIONS) as channel:
        return await health_pb2_grpc.HealthStub(channel).Check(ASKED, timeout=10)


def check_both(address: str) -> None:
    """Ask a service in both ways in which it can be."""
    with open_channel(address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(ASKED, timeout=10)
    assert answer.status == asyncio.run(check_aio(address)).status == health_pb2.HealthCheckResponse.SERVING


def test_a_service_is_reached_past_the_environments_proxy(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with unasked_proxy(monkeypatch):
        service = Service("vio", short_path, "--listen", "127.0.0.1:0")
        try:
            check_both(next(address for address in service.ready["addresses"] if address.startswith("127.")))
        finally:
            service.kill()


def test_a_service_with_tls_is_reached_past_the_environments_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path / "ca")
    service = TlsService("vio", authority.issue(Role.BACKEND, into=tmp_path / "server"))
    monkeypatch.setenv("SPLITVISOR_TLS", str(authority.issue(Role.OPERATOR)))
    try:
        with unasked_proxy(monkeypatch):
            check_both(service.address)
    finally:
        service.end()


def test_a_collector_of_spans_is_reached_past_the_environments_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(port: int) -> None:
        tracing = start_tracing("test", f"http://127.0.0.1:{port}")
        tracing.remote_calls("vm").begin("H_ASK", "backend", 0).end(ResultClass.SUCCESS)
        await tracing.close()

    with unasked_proxy(monkeypatch), socket.create_server(("127.0.0.1", 0)) as collector:
        collector.settimeout(10)
        asyncio.run(main(collector.getsockname()[1]))
        collector.accept()[0].close()


def test_all_channels_are_opened_in_one_place() -> None:
    folders = ("splitvisor", "cpu_service", "hcall_service", "of_client_service", "vio_service", "gateway_service")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    found = {path.name for path in sources if re.search(r"secure_channel\(", path.read_text())}
    assert found == {"channels.py", "renewing_channel.py"}
