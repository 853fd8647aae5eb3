# SPDX-License-Identifier: GPL-2.0-or-later
"""OpenTelemetry: a span for each call that goes to a back end, and one below it for the back end's handler.

`opentelemetry` is an extra and imported by start_tracing() only. Spans leave in batches from a thread of the library's; when they
come faster than the collector takes them, some are dropped and the guest goes on.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from splitvisor import __version__
from splitvisor.declarations.calls import Hypercall, RtasCall
from splitvisor.errors.problem import ProblemError
from splitvisor.net.addresses import AddressError
from splitvisor.net.tls_files import check_address
from splitvisor.observe.call_times import ResultClass
from splitvisor.process.extras import MissingExtraError, require
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.trap.handler_times import Ended

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, SpanKind, Tracer

FLUSH_SECONDS = 2.0
"""How long the end of a service waits for its last spans to be taken."""
EXPORT_SECONDS = 5.0
"""How long the collector may take for a batch."""
BATCH_SECONDS = 1.0
"""How long spans wait for more of their kind."""
TRACEPARENT = "traceparent"
TRACEPARENT_BYTES = 64
"""A longer one is not W3C's and is not looked at."""


class TracingError(ProblemError, ValueError):
    """Spans cannot be recorded as asked; the message says why and what to do."""


class CallSpan(Protocol):
    """The span of one remote call."""

    traceparent: str
    """Goes with the call."""

    def end(self, result: ResultClass) -> None:
        """The call has returned."""


class Tracing:
    """The spans of one process; made by start_tracing()."""

    def __init__(self, provider: TracerProvider, exporter: SpanExporter) -> None:
        from opentelemetry import trace  # an extra
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider, self._exporter = provider, exporter
        self._trace = trace
        self._propagator = TraceContextTextMapPropagator()
        self._tracer: Tracer = provider.get_tracer("splitvisor", __version__)

    def remote_calls(self, vm: str) -> RemoteSpans:
        """Return what records the remote calls of a VM."""
        return RemoteSpans(self, vm)

    def begin(self, vm: str, declared: Hypercall | RtasCall, trap: pb.Trap) -> Ended:
        """See HandlerObserver: a span for a back end's handler, below the one that came with the trap."""
        parent = None
        if trap.traceparent and len(trap.traceparent) <= TRACEPARENT_BYTES:
            parent = self._propagator.extract({TRACEPARENT: trap.traceparent})
        kind = self._trace.SpanKind.SERVER
        span = self.start(declared.call_name, kind, parent, {"splitvisor.vm": vm, "splitvisor.vcpu": trap.vcpu})
        return lambda result: self.end(span, result)

    def start(self, name: str, kind: SpanKind, parent: Any, attributes: dict[str, str | int]) -> Span:
        """Return a span that has begun; without a parent, the first of a trace."""
        context = parent if parent is not None else self._trace.set_span_in_context(self._trace.INVALID_SPAN)
        return self._tracer.start_span(name, context, kind, attributes)

    def end(self, span: Span, result: ResultClass) -> None:
        """End a span with what came of its call."""
        span.set_attribute("splitvisor.result", result.name.lower())
        if result in (ResultClass.ERROR, ResultClass.UNAVAILABLE):
            span.set_status(self._trace.StatusCode.ERROR)
        span.end()

    def traceparent(self, span: Span) -> str:
        """Return a span's context as it travels."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._trace.set_span_in_context(span))
        return carrier.get(TRACEPARENT, "")

    async def close(self) -> None:
        """Send what waits, two seconds at most."""
        closing = threading.Thread(target=self._provider.shutdown, name="otel-end", daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, FLUSH_SECONDS)
        if closing.is_alive():
            self._exporter.shutdown()  # The collector does not answer: lets go of the export under way.


class RemoteSpans:
    """Records the calls that one VM makes to its back ends; used by the vCPU thread alone."""

    def __init__(self, tracing: Tracing, vm: str) -> None:
        self._tracing, self._vm = tracing, vm
        self._open: list[Span] = []
        """Calls under way, each made on behalf of the one before."""

    def begin(self, call: str, backend: str, vcpu: int, *, posted: bool = False) -> CallSpan:
        """A call begins."""
        trace = self._tracing._trace
        parent = trace.set_span_in_context(self._open[-1]) if self._open else None
        attributes: dict[str, str | int] = {"splitvisor.vm": self._vm, "splitvisor.vcpu": vcpu, "splitvisor.backend": backend}
        kind = trace.SpanKind.PRODUCER if posted else trace.SpanKind.CLIENT
        span = self._tracing.start(call, kind, parent, attributes)
        self._open.append(span)
        return _Open(self, span)

    def end(self, span: Span, result: ResultClass) -> None:
        """A call, and whatever was made on its behalf, has returned."""
        del self._open[self._open.index(span) :]
        self._tracing.end(span, result)


class _Open:
    """See CallSpan."""

    def __init__(self, spans: RemoteSpans, span: Span) -> None:
        self._spans, self._span = spans, span
        self.traceparent = spans._tracing.traceparent(span)

    def end(self, result: ResultClass) -> None:
        self._spans.end(self._span, result)


def start_tracing(service: str, endpoint: str) -> Tracing:
    """Record spans and send them to an OTLP collector over gRPC.

    Args:
        service: the value of service.name.
        endpoint: http://HOST:PORT on loopback, or https://HOST:PORT.

    Raises TracingError, also when the extra is not installed.
    """
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise TracingError(f"--otel {endpoint}: not an endpoint", "give http://127.0.0.1:4317, or https://HOST:PORT")
    if parts.scheme == "http":
        try:
            check_address(parts.netloc if parts.port else f"{parts.netloc}:4317")
        except AddressError:
            raise TracingError(f"--otel {endpoint}: plaintext is for loopback only", f"give https://{parts.netloc}") from None
    try:
        require("otel")
    except MissingExtraError as error:
        raise TracingError(f"--otel: {error}") from None
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from splitvisor.net.channels import DIRECT

    resource = Resource.create({"service.name": service, "service.version": __version__})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    direct: Any = DIRECT  # OpenTelemetry's annotation of it knows texts only.
    insecure = parts.scheme == "http"
    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=insecure, timeout=EXPORT_SECONDS, channel_options=direct)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=BATCH_SECONDS * 1000))
    return Tracing(provider, exporter)
