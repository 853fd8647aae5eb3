# SPDX-License-Identifier: GPL-2.0-or-later
"""What Prometheus gets: from real services with a guest, and from the endpoint alone."""

from __future__ import annotations

import asyncio
import http.client
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from splitvisor.observe.call_times import Latency, ResultClass
from splitvisor.observe.metrics import (
    CALLS,
    CONSOLE_OUTPUT,
    DISK_DEPTH,
    DISK_ERRORS,
    DISK_TIME,
    DROPPED_SAMPLES,
    HANDLER,
    HEAD,
    INFO,
    MAX_VMS,
    METRICS,
    NETWORK_FRAMES,
    POSTED_BYTES,
    RECONNECTS,
    REMOTE_CALL,
    RESETS,
    STATE,
    UPTIME,
    Kind,
    Metric,
    Sample,
)
from splitvisor.observe.metrics_endpoint import HEAD_BYTES, MAX_CLIENTS, MetricsAddressError, MetricsEndpoint, split_address
from splitvisor.rpc import trap_pb2
from tests.component.trap_client import wait_until
from tests.demo_machine import SECONDS, machine_stub, start_demo
from tests.disk_images import raw_image
from tests.guests.harness import ROOT
from tests.services import Service, start_services

Values = dict[tuple[str, tuple[str, ...]], float]
"""By sample name and label values, the labels in the order of the table."""

POSTED = POSTED_BYTES.name, ("demo", "vio_service")


def request(address: str, path: str = "/metrics", method: str = "GET", **headers: str) -> tuple[int, str]:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=SECONDS)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def parse(text: str) -> Values:
    """The samples, checked against the table as to names, kinds and labels."""
    known = {metric.name.removesuffix("_total"): metric for metric in METRICS}
    values: Values = {}
    for family in text_string_to_metric_families(text):
        if family.name.startswith("process_"):
            continue
        metric = known[family.name]
        assert family.type == metric.kind
        assert family.documentation == metric.help
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels)
            labels = tuple(sample.labels[name] for name in (*metric.labels, "le") if name in sample.labels)
            values[sample.name, labels] = sample.value
    return values


def scrape(service: Service) -> Values:
    status, text = request(service.ready["metrics"])
    assert status == 200
    return parse(text)


@pytest.fixture(scope="module")
def measured() -> Iterator[dict[str, Service]]:
    """The four services with metrics, and the demo guest on them; for all tests here."""
    with tempfile.TemporaryDirectory(prefix="sv-", dir="/tmp") as directory:
        services = start_services(Path(directory), "--metrics", "0")
        image = raw_image(Path(directory) / "disk.img", 1 << 20)
        devices = (
            trap_pb2.DeviceSpec(kind="v-scsi", options={"disk0": str(image)}),
            trap_pb2.DeviceSpec(kind="l-lan", options={"net": "switch=metrics"}),
        )
        try:
            with machine_stub(services) as stub:
                start_demo(stub, services, devices)
                yield services
        finally:
            for service in services.values():
                service.end()


def test_services_export_what_the_table_lists(measured: dict[str, Service]) -> None:
    found: dict[str, Values] = {}

    def waits_for_input() -> bool:
        found.update({name: scrape(service) for name, service in measured.items()})
        written = found["vio"].get((CONSOLE_OUTPUT.name, ("demo", "0x71000000")), 0)
        made = found["cpu"].get((CALLS.name, ("demo", "H_OF_CLIENT", "of_client_service")), 0)
        answered = timed(found["cpu"], REMOTE_CALL, "H_OF_CLIENT")
        handled = timed(found["of-client"], HANDLER, "H_OF_CLIENT")
        ceded = ("demo", "H_CEDE", "local") in {key[1] for key in found["cpu"]}
        return ceded and found["cpu"][POSTED] == written > 0 and made == answered == handled > 0

    wait_until(waits_for_input, "the guest waits for input, and all that it wrote has arrived")
    for name, values in found.items():
        assert values[INFO.name, (name, "0.1.0")] == 1
    names = {sample for values in found.values() for sample, _ in values}
    # Nothing was typed, so no device has signalled anything; the demo guest raises no exceptions.
    rare = {"splitvisor_interrupts_total", "splitvisor_vcpu_exceptions_total"}
    for metric in METRICS:
        exported = metric.name + "_count" if metric.kind is Kind.HISTOGRAM else metric.name
        assert exported in names or metric.name in rare, metric

    cpu, vio, hcall = found["cpu"], found["vio"], found["hcall"]
    disk, network = ("demo", "0x71000001", "disk0"), ("demo", "0x71000002")
    assert {operation: vio[f"{DISK_TIME.name}_count", (*disk, operation)] for operation in ("read", "write", "flush")} == {
        "read": 0, "write": 0, "flush": 0,
    }  # fmt: skip
    assert vio[DISK_DEPTH.name, disk] == vio[DISK_ERRORS.name, disk] == 0
    assert {vio[NETWORK_FRAMES.name, (*network, direction)] for direction in ("sent", "received")} == {0}
    assert cpu[STATE.name, ("demo", "running")] == 1
    assert cpu[RESETS.name, ("demo",)] == 1
    assert cpu[UPTIME.name, ("demo",)] > 0
    assert hcall[HEAD.name, ("demo",)] >= 1
    assert cpu[POSTED] == vio[CONSOLE_OUTPUT.name, ("demo", "0x71000000")] > 0
    calls = cpu[CALLS.name, ("demo", "H_OF_CLIENT", "of_client_service")]
    assert timed(cpu, REMOTE_CALL, "H_OF_CLIENT") == timed(found["of-client"], HANDLER, "H_OF_CLIENT") == calls > 0


def timed(values: Values, metric: Metric, call: str) -> float:
    """How many calls of a name were timed, whatever came of them."""
    return sum(value for (name, labels), value in values.items() if name == f"{metric.name}_count" and labels[1] == call)


def test_a_back_end_that_came_back_is_counted(measured: dict[str, Service]) -> None:
    vio = measured["vio"]
    vio.kill()
    vio.start()
    key = (RECONNECTS.name, ("demo", "vio_service"))
    wait_until(lambda: scrape(measured["cpu"])[key] == 1, "vio_service is attached again")
    wait_until(lambda: scrape(vio)["splitvisor_attached_vms", ()] == 1, "it knows the VM")


def test_without_the_flags_nothing_is_measured_or_loaded() -> None:
    program = (
        "import sys, splitvisor.service.main, cpu_service.service, hcall_service.service, vio_service.service, "
        "of_client_service.service; "
        "print(sorted({'prometheus_client', 'opentelemetry', 'rich'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=SECONDS)
    assert done.stdout == "[]\n"


def test_an_address_that_is_taken_is_an_error_in_one_line(measured: dict[str, Service], short_path: Path) -> None:
    taken = measured["cpu"].ready["metrics"]
    command = [sys.executable, "-m", "splitvisor.service.main", "vio", "--listen", f"unix:{short_path}/x", "--metrics", taken]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 2
    assert f"--metrics {taken}: cannot listen there" in done.stderr.splitlines()[-1]


# The endpoint alone.


def serve(samples: list[Sample], ask: Callable[[str], object]) -> None:
    """Run an endpoint with these samples while ask(address) runs in a thread."""

    async def main() -> None:
        endpoint = MetricsEndpoint("test", [lambda: samples])
        address = await endpoint.start("0")
        try:
            await asyncio.to_thread(ask, address)
        finally:
            await endpoint.close()

    asyncio.run(main())


def test_a_histogram_is_exported_as_prometheus_wants_it() -> None:
    latency = Latency()
    latency.counts[0], latency.counts[4], latency.counts[-1], latency.seconds = 2, 3, 1, 42.5

    def ask(address: str) -> None:
        labels = ("vm", "H_ASK", ResultClass.SUCCESS.name.lower())
        values = parse(request(address)[1])
        assert values[f"{HANDLER.name}_count", labels] == 6
        assert values[f"{HANDLER.name}_sum", labels] == 42.5
        assert values[f"{HANDLER.name}_bucket", (*labels, "1e-05")] == 2
        assert values[f"{HANDLER.name}_bucket", (*labels, "0.0002")] == 5
        assert values[f"{HANDLER.name}_bucket", (*labels, "30.0")] == 5
        assert values[f"{HANDLER.name}_bucket", (*labels, "+Inf")] == 6

    serve([Sample(HANDLER, ("vm", "H_ASK", "success"), latency)], ask)


def test_vm_names_as_labels_are_bounded() -> None:
    samples = [Sample(metric, (f"vm{number}",), 1) for number in range(MAX_VMS + 5) for metric in (UPTIME, RESETS)]

    def ask(address: str) -> None:
        values = parse(request(address)[1])
        assert sum(name == UPTIME.name for name, _ in values) == MAX_VMS
        assert values[DROPPED_SAMPLES.name, ()] == 10

    serve(samples, ask)


def test_only_a_get_of_metrics_is_answered() -> None:
    def ask(address: str) -> None:
        assert request(address, "/")[0] == 404
        assert request(address, "/metrics", "POST")[0] == 405
        assert request(address, "/metrics?name=x")[0] == 200
        assert request(address, "/metrics", "HEAD") == (200, "")
        assert "# EOF" in request(address, Accept="application/openmetrics-text; version=1.0.0")[1]

    serve([], ask)


def test_clients_that_misbehave_do_not_keep_others_out() -> None:
    async def main() -> None:
        endpoint = MetricsEndpoint("test", [])
        address = await endpoint.start("127.0.0.1:0")
        host, port = split_address(address)
        idle = [await asyncio.open_connection(host, port) for _ in range(MAX_CLIENTS)]
        surplus, writer = await asyncio.open_connection(host, port)
        async with asyncio.timeout(SECONDS):
            refused = await _read_all(surplus)
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"16 clients are being answered" in refused
        writer.close()
        for _, each in idle:
            each.close()
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /metrics HTTP/1.1\r\nX: " + b"x" * (2 * HEAD_BYTES))
        async with asyncio.timeout(SECONDS):
            assert await _read_all(reader) == b"", "a head without end is not read on"
        writer.close()
        assert (await asyncio.to_thread(request, address))[0] == 200
        await endpoint.close()

    asyncio.run(main())


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


def test_a_scrape_that_fails_says_so_and_the_next_one_works() -> None:
    broken = [True]

    def source() -> Iterator[Sample]:
        if broken.pop():
            raise RuntimeError("on purpose")
        broken.append(False)
        yield Sample(UPTIME, ("vm",), 1)

    async def main() -> None:
        endpoint = MetricsEndpoint("test", [source])
        address = await endpoint.start("0")
        assert (await asyncio.to_thread(request, address))[0] == 500
        broken.append(False)
        assert (await asyncio.to_thread(request, address))[0] == 200
        await endpoint.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("text", "expected"),
    [("9464", ("127.0.0.1", 9464)), (":1", ("127.0.0.1", 1)), ("0.0.0.0:2", ("0.0.0.0", 2)), ("[::1]:3", ("::1", 3))],
)
def test_an_address_without_a_host_is_loopback(text: str, expected: tuple[str, int]) -> None:
    assert split_address(text) == expected


@pytest.mark.parametrize("text", ["", "host", "host:", "host:70000", "1:x"])
def test_a_wrong_address_is_named(text: str) -> None:
    with pytest.raises(MetricsAddressError, match="give HOST:PORT"):
        split_address(text)


def test_the_table_is_one_prometheus_accepts() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
    for metric in METRICS:
        assert metric.name.startswith("splitvisor_")
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER), metric
        assert isinstance(metric, Metric)
