# SPDX-License-Identifier: GPL-2.0-or-later
"""The HTTP endpoint that Prometheus scrapes: GET /metrics, in the service's own event loop.

Only for a service that was given `--metrics`: prometheus_client is imported here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from splitvisor import __version__
from splitvisor.errors.problem import ProblemError
from splitvisor.net.addresses import parse_host_port
from splitvisor.observe.call_times import BOUNDS, Latency
from splitvisor.observe.metrics import DROPPED_SAMPLES, INFO, MAX_VMS, Kind, Metric, Sample, Source
from splitvisor.process.logging import get_logger

HEAD_BYTES = 8 << 10
"""The longest request."""
REQUEST_SECONDS = 5.0
"""How long a client may take, to ask and to read the answer."""
MAX_CLIENTS = 16

_TEXT = "text/plain; charset=utf-8"
_log = get_logger(__name__)


class MetricsAddressError(ProblemError, ValueError):
    """Metrics cannot be served at an address; the message says why and what to give instead."""


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of `PORT` (on 127.0.0.1), `HOST:PORT` or `[IPV6]:PORT`. Raises MetricsAddressError."""
    parsed = parse_host_port(text if ":" in text else f":{text}")
    if parsed is None:
        raise MetricsAddressError(f"--metrics {text}: not an address", "give HOST:PORT, or PORT for loopback")
    return parsed[0] or "127.0.0.1", parsed[1]


class MetricsEndpoint:
    """Serves the samples of a service.

    Args:
        service: as `splitvisor service` knows it; a label of splitvisor_service_info.
        sources: read at each scrape, in the running loop.
    """

    def __init__(self, service: str, sources: Sequence[Source]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Samples(service, sources))
        ProcessCollector(registry=self._registry)
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self, address: str) -> str:
        """Listen, and return the address with the port that was chosen when 0 was asked for. Raises MetricsAddressError."""
        host, port = split_address(address)
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=HEAD_BYTES)
        except OSError as error:
            raise MetricsAddressError(f"--metrics {address}: cannot listen there: {error.strerror or error}") from error
        chosen = self._server.sockets[0].getsockname()
        return f"[{host}]:{chosen[1]}" if ":" in host else f"{host}:{chosen[1]}"

    async def close(self) -> None:
        """Stop listening and let go of clients."""
        if self._server is not None:
            self._server.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._clients) >= MAX_CLIENTS:
            text = f"{MAX_CLIENTS} clients are being answered; try again later\n"
            writer.write(_response("503 Service Unavailable", _TEXT, text.encode()))
            writer.close()  # What does not fit into the socket at once is not waited for.
            return
        self._clients.add(task)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # A client that goes, dawdles or talks too much.
        finally:
            writer.transport.abort()
            self._clients.discard(task)

    def _answer(self, head: bytes) -> bytes:
        request, *lines = head.decode("latin-1").split("\r\n")
        method, _, rest = request.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method not in ("GET", "HEAD"):
            return _response("405 Method Not Allowed", _TEXT, b"GET only\n")
        if path != "/metrics":
            return _response("404 Not Found", _TEXT, b"metrics are at /metrics\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        encode, content_type = choose_encoder(headers.get("accept", ""))
        try:
            body = encode(self._registry)
        except Exception:
            _log.exception("metrics could not be collected")
            return _response("500 Internal Server Error", _TEXT, b"metrics could not be collected; the service's log says why\n")
        return _response("200 OK", content_type, body if method == "GET" else b"", len(body))


def _response(status: str, content_type: str, body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = (f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {size}", "Connection: close", "", "")
    return "\r\n".join(head).encode() + body


class _Samples(Collector):
    """Samples as prometheus_client wants them."""

    def __init__(self, service: str, sources: Sequence[Source]) -> None:
        self._service, self._sources = service, sources

    def collect(self) -> Iterator[Family]:
        """Read every source."""
        families: dict[Metric, Family] = {}
        vms: set[str] = set()
        dropped = 0
        for sample in self._read():
            if sample.metric.labels[:1] == ("vm",):
                if sample.labels[0] not in vms and len(vms) >= MAX_VMS:
                    dropped += 1
                    continue
                vms.add(sample.labels[0])
            _add(families, sample)
        _add(families, Sample(DROPPED_SAMPLES, (), dropped))
        yield from families.values()

    def _read(self) -> Iterable[Sample]:
        yield Sample(INFO, (self._service, __version__), 1)
        for source in self._sources:
            yield from source()


def _add(families: dict[Metric, Family], sample: Sample) -> None:
    metric = sample.metric
    family = families.get(metric)
    if family is None:
        family = families[metric] = _KINDS[metric.kind](metric.name, metric.help, labels=metric.labels)
    if isinstance(sample.value, Latency):
        assert isinstance(family, HistogramMetricFamily)
        buckets, below = [], 0
        for bound, count in zip((*map(repr, BOUNDS), "+Inf"), sample.value.counts, strict=True):
            below += count
            buckets.append((bound, below))
        family.add_metric(sample.labels, buckets, sample.value.seconds)
    else:
        assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
        family.add_metric(sample.labels, sample.value)


_KINDS = {
    Kind.COUNTER: CounterMetricFamily,
    Kind.GAUGE: GaugeMetricFamily,
    Kind.HISTOGRAM: HistogramMetricFamily,
}
