# SPDX-License-Identifier: GPL-2.0-or-later
"""Spans of calls: what an OTLP collector gets from real services, and what happens without one."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from splitvisor.observe.call_times import ResultClass
from splitvisor.rpc import machine_pb2 as pb
from splitvisor.trap.tracing import TracingError, start_tracing
from tests.component.trap_client import wait_until
from tests.demo_machine import SECONDS, machine_stub, start_demo
from tests.guests.harness import ROOT
from tests.services import start_services


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps every span with the service that sent it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: list[tuple[str, Span]] = []
        self._server = grpc.server(ThreadPoolExecutor(4))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        with self._lock:
            for resource in request.resource_spans:
                name = next(each.value.string_value for each in resource.resource.attributes if each.key == "service.name")
                self._spans += [(name, span) for scope in resource.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self, service: str, name: str = "") -> list[Span]:
        with self._lock:
            return [span for sender, span in self._spans if sender == service and name in ("", span.name)]

    def stop(self) -> None:
        self._server.stop(0).wait(SECONDS)


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.stop()


def attributes(span: Span) -> dict[str, str | int]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def test_a_call_is_a_span_and_its_handler_another_below_it(collector: Collector, short_path: Path) -> None:
    services = start_services(short_path, "--otel", f"http://127.0.0.1:{collector.port}")
    try:
        with machine_stub(services) as stub:
            start_demo(stub, services)
            wait_until(lambda: collector.spans("vio_service", "H_PUT_TERM_CHAR"), "output was traced")
            stub.StopMachine(pb.StopMachineRequest(vm="demo"), timeout=SECONDS)
    finally:
        for service in services.values():  # What waits is sent at the end.
            service.end()
    assert all(service.process.returncode == 0 for service in services.values())

    below = {span.parent_span_id: span for span in collector.spans("of_client_service")}
    calls = collector.spans("cpu_service", "H_OF_CLIENT")
    assert calls
    for call in calls:
        handler = below[call.span_id]
        assert (handler.trace_id, handler.name, handler.kind) == (call.trace_id, "H_OF_CLIENT", Span.SPAN_KIND_SERVER)
        assert call.kind == Span.SPAN_KIND_CLIENT
        assert call.start_time_unix_nano <= handler.start_time_unix_nano <= handler.end_time_unix_nano <= call.end_time_unix_nano
    found = attributes(calls[0])
    assert found == {
        "splitvisor.vm": "demo", "splitvisor.vcpu": 0, "splitvisor.backend": "of_client_service", "splitvisor.result": "success",
    }  # fmt: skip

    posted = {span.span_id: span for span in collector.spans("cpu_service", "H_PUT_TERM_CHAR")}
    printed = collector.spans("vio_service", "H_PUT_TERM_CHAR")
    assert printed
    assert all(posted[span.parent_span_id].kind == Span.SPAN_KIND_PRODUCER for span in printed)
    by_id = {call.span_id for call in calls}
    assert any(span.parent_span_id in by_id for span in posted.values()), "the firmware's output hangs below its client's call"
    assert any(not span.parent_span_id for span in calls), "the guest's own call is the first of its trace"


def test_a_collector_that_does_not_answer_does_not_hold_up_the_end() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            tracing = start_tracing("test", f"http://127.0.0.1:{silent.getsockname()[1]}")
            tracing.remote_calls("vm").begin("H_ASK", "backend", 0).end(ResultClass.SUCCESS)
            await tracing.close()

    asyncio.run(main())
    wait_until(lambda: not [each.name for each in threading.enumerate() if "otel" in each.name.lower()], "its threads have ended")


def vio(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Start a vio_service whose parent is gone already, so that it ends once it runs."""
    read, write = os.pipe()
    os.close(write)
    command = [sys.executable, "-m", "splitvisor.service.main", "vio", "--listen", f"unix:{directory}/vio.sock"]
    try:
        return subprocess.run(
            [*command, "--parent-fd", str(read), *arguments], cwd=ROOT, env={**os.environ, **environment}, pass_fds=(read,),
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
    finally:
        os.close(read)


def test_a_wrong_endpoint_is_an_error_when_it_was_given_and_a_warning_from_the_environment(short_path: Path) -> None:
    given = vio(short_path, "--otel", "http://collector.example:4317")
    assert given.returncode == 2
    assert "plaintext is for loopback only; give https://collector.example:4317" in given.stderr
    found = vio(short_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://collector.example:4317")
    assert found.returncode == 0
    assert "no spans are recorded" in found.stderr


@pytest.mark.parametrize("endpoint", ["", "127.0.0.1:4317", "ftp://127.0.0.1", "http://", "http://192.0.2.1:4317"])
def test_an_endpoint_is_a_url_that_may_be_spoken_to(endpoint: str) -> None:
    with pytest.raises(TracingError, match="--otel"):
        start_tracing("test", endpoint)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc", None)
    with pytest.raises(TracingError, match=r"pip install 'splitvisor\[otel\]'"):
        start_tracing("test", "http://127.0.0.1:4317")
