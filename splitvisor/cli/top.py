# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor top VM`: what a machine does, again and again."""

from __future__ import annotations

import json
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from splitvisor.cli.control import DEADLINE_S, USAGE, fail, machine_stub
from splitvisor.cli.reader import end_without_reader
from splitvisor.cli.seconds import seconds
from splitvisor.cli.vio_backends import BusBackend, ask_one
from splitvisor.process.signals import Unwinding
from splitvisor.run.running_vms import NoSuchVmError, service_address
from splitvisor.service.names import SERVICE_NAMES

if TYPE_CHECKING:
    from rich.console import RenderableType

    from splitvisor.observe.machine_view import Look, MachineView

VIO_SECONDS = 1.0
"""How long vio_service may take; without it consoles, disks and networks are left out."""
SHOWN_CALLS = 20
FIRST_LOOK_SECONDS = 0.2
"""The first view of a terminal covers this time only, so that there is something to see."""
ENDED = frozenset({"powered_off", "crashed", "stopped", "failed"})


def top(
    vm: Annotated[str, typer.Argument(metavar="VM", help="The VM's name")],
    *,
    interval: Annotated[float, typer.Option(metavar="S", parser=seconds(0.1, 60), help="Seconds between views")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one view over one interval, then end")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print views as JSON, one object per line")] = False,
    cpu: Annotated[str | None, typer.Option(metavar="ADDRESS", help="cpu_service \\[that of the run with the VM]")] = None,
    vio: Annotated[str | None, typer.Option(metavar="ADDRESS", help="vio_service, for devices \\[that of the same run]")] = None,
) -> None:
    """Show a machine at work: state, calls with their rates and latencies, back ends, interrupts, consoles, disks, networks.

    q ends it.

    Exit status: 0 ended as asked or with the machine, 1 no answer, 2 wrong usage.
    """
    if not (once or as_json or sys.stdout.isatty()):
        fail("top", "the output is not a terminal; give --once or --json", USAGE)
    end_without_reader()
    with machine_stub("top", vm, cpu) as machine, _optional_channel(vio or _vio_of(vm)) as own:
        look = _looker(vm, machine, own, others=vio is None)
        if as_json:
            for each in _views(look, interval, _sleep):
                print(json.dumps(each.as_object()), flush=True)
                if once:
                    return
        elif once:
            from rich.console import Console  # slow to load

            for each in _views(look, interval, _sleep):
                Console().print(render(each))
                return
            fail("top", "the machine has just ended")
        else:
            _live(look, interval)


def _vio_of(vm: str) -> str | None:
    try:
        return service_address(vm, "vio")
    except NoSuchVmError:
        return None


@contextmanager
def _optional_channel(address: str | None) -> Iterator[Any]:
    """Yield a channel, or None when there is no address."""
    from splitvisor.net.addresses import AddressError
    from splitvisor.net.channels import open_channel

    if address is None:
        yield None
        return
    try:
        channel = open_channel(address)
    except AddressError as error:
        fail("top", str(error), USAGE)
    with channel:
        yield channel


def _looker(vm: str, machine: Any, vio: Any, *, others: bool) -> Callable[[], Look]:
    """Return what asks the services.

    Args:
        vm: the VM.
        machine: a stub of its cpu_service.
        vio: a channel to its vio_service; None: it is not known.
        others: further back ends may have devices, too.
    """
    import grpc

    from splitvisor.net.pages import console_key, every
    from splitvisor.observe.machine_view import Look
    from splitvisor.rpc import console_pb2, console_pb2_grpc, machine_pb2, vio_bus_pb2, vio_bus_pb2_grpc

    own = {name.package for name in SERVICE_NAMES}

    def list_consoles(stub: Any, seconds: float) -> Any:
        return every(stub.ListConsoles, console_pb2.ListConsolesRequest(vm=vm), seconds)

    def describe_bus(stub: Any, seconds: float) -> Any:
        return stub.DescribeBus(vio_bus_pb2.DescribeBusRequest(vm=vm), timeout=seconds).devices

    def look() -> Look:
        status = machine.GetStatus(machine_pb2.GetStatusRequest(vm=vm), timeout=DEADLINE_S)
        consoles: list[Any] = []
        devices: list[Any] = []
        if vio is not None:
            with suppress(grpc.RpcError):
                consoles += list_consoles(console_pb2_grpc.ConsoleServiceStub(vio), VIO_SECONDS)
                devices += describe_bus(vio_bus_pb2_grpc.VioBusServiceStub(vio), VIO_SECONDS)
        for backend in (BusBackend(each.name, each.address) for each in status.backends if others and each.name not in own):
            for found, stub, ask in (
                (consoles, console_pb2_grpc.ConsoleServiceStub, list_consoles),
                (devices, vio_bus_pb2_grpc.VioBusServiceStub, describe_bus),
            ):
                answer = ask_one(backend, stub, ask)
                found.extend(() if answer is None or isinstance(answer, str) else answer)
        return Look(status, tuple(sorted(consoles, key=console_key)), tuple(devices))

    return look


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return True


def _views(look: Callable[[], Look], interval: float, wait: Callable[[float], bool]) -> Iterator[MachineView]:
    """Yield a view for each interval until wait() says that it is enough, or the machine or its service has ended."""
    import grpc

    from splitvisor.observe.machine_view import view

    before = look()
    while wait(interval):
        try:
            now = look()
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                raise
            return
        seen = view(before, now)
        yield seen
        if seen.state in ENDED:
            return
        before = now


def _live(look: Callable[[], Look], interval: float) -> None:
    from rich.live import Live  # slow to load

    from splitvisor.observe.machine_view import view

    with _keys() as quit_within:
        first = look()
        if not quit_within(FIRST_LOOK_SECONDS):
            return
        last = view(first, look())
        with Live(render(last), screen=True, auto_refresh=False) as live:
            for last in _views(look, interval, quit_within):
                live.update(render(last), refresh=True)
    if last.state in ENDED:
        typer.echo(f"{last.vm}: {last.state.replace('_', ' ')} after {_time(last.uptime_seconds)}")


@contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """Yield what waits so many seconds and says whether to go on: False once q was typed."""
    if not sys.stdin.isatty():
        yield _sleep
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def go_on(seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([descriptor], [], [], left)[0] and os.read(descriptor, 1) in (b"q", b"Q", b""):
                return False
        return True

    with Unwinding():
        try:
            tty.setcbreak(descriptor)
            yield go_on
        finally:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def render(view: MachineView) -> RenderableType:
    """Return a view as rich shows it."""
    from rich.console import Group  # slow to load
    from rich.table import Table
    from rich.text import Text

    head = Text.assemble(
        (view.vm, "bold"), f"  {view.state}  up {_time(view.uptime_seconds)}  resets {view.resets}  "
        f"RAM {view.ram_bytes >> 20} MiB\n"
        f"vCPU thread: {view.cpu_percent:.0f} % of a host CPU, waiting {view.waiting_percent:.0f} %, "
        f"idle {view.idle_percent:.0f} %  calls {view.calls_per_second:,.0f}/s\n"
        f"interrupts/s: {_rates(view.interrupts_per_second)}\n"
        f"exceptions/s: {_rates(view.exceptions_per_second)}",
    )  # fmt: skip
    backends = _table(Table, "Back end", "State", ">Reconnects", ">Posted B/s", ">Credit stalls")
    for backend in view.backends:
        state = Text("attached") if backend.attached else Text("away", "bold red")
        backends.add_row(
            backend.name, state, str(backend.reconnects), f"{backend.posted_bytes_per_second:,.0f}", str(backend.credit_stalls)
        )
    calls = _table(Table, "Call", "Owner", ">Calls/s", ">Mean ms", ">p99 ms", ">Total")
    for call in view.calls[:SHOWN_CALLS]:
        calls.add_row(
            Text(call.name), call.owner, f"{call.per_second:,.0f}", _ms(call.mean_ms), _ms(call.p99_ms), f"{call.total:,}"
        )
    parts: list[RenderableType] = [head, backends, calls]
    if view.consoles:
        consoles = _table(Table, "Console", ">Output B/s", ">Output", ">Input", ">Readers", "Writer")
        for each in view.consoles:
            consoles.add_row(
                each.console, f"{each.output_bytes_per_second:,.0f}", f"{each.output_bytes:,}", f"{each.input_bytes:,}",
                str(each.readers), Text(each.writer),
            )  # fmt: skip
        parts.append(consoles)
    if view.disks:
        disks = _table(Table, "Disk", ">Reads/s", ">B/s", ">ms", ">Writes/s", ">B/s", ">ms", ">Errors", ">Depth")
        for disk in view.disks:
            disks.add_row(
                Text(disk.disk), f"{disk.reads_per_second:,.0f}", f"{disk.read_bytes_per_second:,.0f}", _ms(disk.read_ms),
                f"{disk.writes_per_second:,.0f}", f"{disk.written_bytes_per_second:,.0f}", _ms(disk.write_ms), str(disk.errors),
                str(disk.depth),
            )  # fmt: skip
        parts.append(disks)
    if view.networks:
        networks = _table(Table, "Network", ">Sent/s", ">B/s", ">Received/s", ">B/s", ">Dropped")
        for network in view.networks:
            networks.add_row(
                network.device, f"{network.sent_per_second:,.0f}", f"{network.sent_bytes_per_second:,.0f}",
                f"{network.received_per_second:,.0f}", f"{network.received_bytes_per_second:,.0f}", str(network.dropped),
            )  # fmt: skip
        parts.append(networks)
    return Group(*parts)


def _table(make: Callable[..., Any], *columns: str) -> Any:
    """A table; a column whose name starts with > has numbers."""
    table = make(box=None, pad_edge=False, header_style="bold", expand=False)
    for column in columns:
        table.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left", no_wrap=True)
    return table


def _rates(rates: Any) -> str:
    return ", ".join(f"{name} {rate:,.0f}" for name, rate in sorted(rates.items(), key=lambda item: -item[1])) or "none"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
