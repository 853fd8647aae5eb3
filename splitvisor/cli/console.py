# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor console`: the consoles of running VMs, for people and for scripts."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from splitvisor.cli.control import DEADLINE_S, FAILED, USAGE, fail, service_stub
from splitvisor.cli.seconds import LIMIT, seconds
from splitvisor.cli.vio_backends import BusBackend, ask_all, ask_one, further_backends, vio_backends
from splitvisor.machine.service_addresses import CONNECT_VARIABLE
from splitvisor.net.addresses import AddressError
from splitvisor.process import signals
from splitvisor.process.streams import READER_GONE
from splitvisor.process.text import bytes_of
from splitvisor.run.exit_status import ExitStatus
from splitvisor.run.running_vms import running_vms
from splitvisor.service.names import VIO_SERVICE

if TYPE_CHECKING:
    from splitvisor.rpc import console_pb2
    from splitvisor.terminal.script import Target

console = typer.Typer(help="Consoles of running VMs.", no_args_is_help=True)

TRANSCRIPT_SECONDS = 600.0
"""How long a transcript may take to come."""

Vm = Annotated[str, typer.Argument(metavar="VM", help="The VM's name")]
Unit = Annotated[str, typer.Option("--unit", metavar="ADDRESS", help="Unit address of the VTY \\[the VM's first]")]
Vio = Annotated[
    str | None, typer.Option("--vio", metavar="ADDRESS", help="Use only this back end \\[all back ends of the run with the VM]")
]
Force = Annotated[bool, typer.Option("--force", help="Take over the console; its writer becomes a reader")]
Wait = Annotated[float, typer.Option("--wait", metavar="S", parser=seconds(0, 60), help="How long to wait for the VM")]

_T = TypeVar("_T")


@console.command("list")
def list_consoles(
    vm: Annotated[str | None, typer.Argument(metavar="VM", help="The VM's name \\[all VMs that this user runs]")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
    vio: Vio = None,
) -> None:
    """List consoles, and who is attached to them."""
    from splitvisor.rpc import console_pb2_grpc  # slow to load

    command = "console list"
    places = [(vm or "", vio_backends(command, vm or "", vio))] if vm or vio else _all_vms(command)
    found: list[console_pb2.Console] = []
    for name, backends in places:
        for _, answer in ask_all(command, name, backends, console_pb2_grpc.ConsoleServiceStub, _list_of(name)):
            found.extend(answer)
    found.sort(key=lambda each: (each.vm, each.unit_address))
    if as_json:
        typer.echo(json.dumps([_fields(each) for each in found], indent=2))
        return
    if not found:
        typer.echo("splitvisor console list: no VM with a console is attached there", err=True)
    for each in found:
        typer.echo(_line(each))
        for client in each.clients:
            typer.echo(f"    {_client(client)}")


@console.command("attach")
def attach(
    vm: Vm,
    *,
    unit: Unit = "0",
    read_only: Annotated[bool, typer.Option("--read-only", help="Only read")] = False,
    force: Force = False,
    wait: Wait = 10.0,
    vio: Vio = None,
) -> None:
    """Attach this terminal, or a pipe, to a console.

    [bold]^][/] opens a menu: q leaves. From a pipe every byte is sent to the guest; the end of the pipe does not end the command.

    Exit status: 0 left, or the VM or the reader of the output ended, 1 refused or lost.
    """
    from splitvisor.terminal.session import TerminalEnd, attach_terminal, notify_on_stderr  # slow to load

    command = "console attach"
    address = _address(command, vm, vio, _unit(command, unit))
    result = _run(
        command,
        attach_terminal(
            address, vm, _unit(command, unit), stdin=sys.stdin.fileno(), stdout=sys.stdout.fileno(), writer=not read_only,
            force=force, wait_seconds=wait, greet=True,
        ),
    )  # fmt: skip
    lost = f"; {result.lost_bytes} bytes of output are lost" if result.lost_bytes else ""
    notify_on_stderr(f"VM {vm}: {result.text}{lost}")
    raise typer.Exit({TerminalEnd.LOST: FAILED, TerminalEnd.INTERRUPTED: ExitStatus.INTERRUPTED}.get(result.end, 0))


@console.command("log")
def log(
    vm: Vm,
    *,
    unit: Unit = "0",
    size: Annotated[int, typer.Option("--bytes", metavar="N", min=0, help="Only the newest N bytes [0: all]")] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue with new output until the VM ends")] = False,
    vio: Vio = None,
) -> None:
    """Print a console's past output: its transcript if there is one, otherwise the newest MiB."""
    from splitvisor.rpc import console_pb2, console_pb2_grpc  # slow to load

    command = "console log"
    request = console_pb2.ReadTranscriptRequest(vm=vm, unit_address=_unit(command, unit), max_bytes=size)
    first = console_pb2.ReadTranscriptResponse()
    address = _address(command, vm, vio, request.unit_address)
    shown = _shown()
    with service_stub(command, vm, "vio", address, console_pb2_grpc.ConsoleServiceStub) as stub:
        for response in stub.ReadTranscript(request, timeout=TRANSCRIPT_SECONDS):
            if not response.data:
                first = response
            else:
                _write(shown(response.data))
    if follow:
        if not first.instance:
            fail(command, f"VM {vm!r} is not attached to vio_service; there is nothing to follow")
        _run(command, _follow(address, request, first, shown))


@console.command("send")
def send(
    vm: Vm,
    text: Annotated[str, typer.Argument(metavar="TEXT", help=r"Text to type, with the escapes \r \n \t \e \\ \xHH")],
    *,
    enter: Annotated[bool, typer.Option("--enter", help="Type Enter after it")] = False,
    position: Annotated[
        bool, typer.Option("--position", help="Print the console's position before it, for expect --from")
    ] = False,
    unit: Unit = "0",
    force: Force = False,
    timeout: Annotated[float, typer.Option(metavar="S", parser=LIMIT, help="Time limit")] = 10.0,
    vio: Vio = None,
) -> None:
    """Type a text at a console.

    Exit status: 0 accepted by vio_service, 1 refused, ended or not to be reached, 124 timeout.
    """
    from splitvisor.terminal.script import send_text
    from splitvisor.terminal.session import notify_on_stderr  # slow to load

    command = "console send"
    data = _bytes(command, text) + (b"\r" if enter else b"")
    target = _target(command, vm, unit, force, timeout, vio)
    before = _run(command, send_text(target, data, notify_on_stderr, timeout), f"the guest did not take it within {timeout:g} s")
    if before is None:
        fail(command, "the console ended or was taken over before all was typed")
    if position:
        typer.echo(before)


@console.command("expect")
def expect(
    vm: Vm,
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="Text to wait for")] = None,
    *,
    regex: Annotated[
        str | None, typer.Option("--regex", metavar="RE", help="A regular expression instead of TEXT; ^ and $ match at line ends")
    ] = None,
    timeout: Annotated[float, typer.Option(metavar="S", parser=LIMIT, help="How long to wait")] = 60.0,
    typed: Annotated[str | None, typer.Option("--send", metavar="TEXT", help="Type this first, as `send` does")] = None,
    new: Annotated[bool, typer.Option("--new", help="Search new output only, not the replay")] = False,
    after: Annotated[
        str | None, typer.Option("--from", metavar="POSITION", help="Search the output after what --position printed, all of it")
    ] = None,
    position: Annotated[
        bool, typer.Option("--position", help="Print the position after the match instead of the line, for the next --from")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print line, match and position as JSON")] = False,
    unit: Unit = "0",
    force: Force = False,
    vio: Vio = None,
) -> None:
    """Wait until a console shows a text, and print the line.

    Exit status: 0 found, 1 the console ended or cannot be reached, 124 timeout.
    """
    from splitvisor.terminal.script import Position, PositionError, expect_text
    from splitvisor.terminal.search import RegexSearch, SearchError, TextSearch
    from splitvisor.terminal.session import notify_on_stderr  # slow to load

    command = "console expect"
    if (text is None) == (regex is None):
        fail(command, "give either TEXT or --regex RE", USAGE)
    if new and after is not None:
        fail(command, "--new and --from exclude each other; leave out --new", USAGE)
    data = _bytes(command, typed or "")
    try:
        start = Position.parse(after) if after is not None else None
        search = (
            RegexSearch(bytes_of(regex)) if regex is not None else TextSearch(_bytes(command, text or "").replace(b"\r", b""))
        )
        target = _target(command, vm, unit, force, timeout, vio)
        work = expect_text(target, search, notify_on_stderr, timeout=timeout, new=new, after=start, send=data)
        found = _run(command, work, f"not within {timeout:g} s: {text if text is not None else regex!r}")
    except PositionError as error:
        fail(command, f"--from: {error}", USAGE)
    except SearchError as error:
        fail(command, f"--regex {regex!r}: {error}" if regex is not None else str(error), USAGE)
    if found is None:
        fail(command, "the console ended without showing it")
    if as_json:
        typer.echo(json.dumps({"line": found.line, "match": found.match, "position": str(found.position)}))
    else:
        typer.echo(found.position if position else found.line)


# What they share.


def _all_vms(command: str) -> list[tuple[str, Sequence[BusBackend]]]:
    """Where to ask for consoles when nothing is named, and for which VM's: all of the environment's, or those of all runs."""
    if os.environ.get(CONNECT_VARIABLE):
        return [("", vio_backends(command, "", None))]
    runs: list[tuple[str, Sequence[BusBackend]]] = [
        (run.name, (BusBackend(VIO_SERVICE, run.services["vio"]), *further_backends(command, run.name, run.services["cpu"])))
        for run in running_vms()
    ]
    return runs or fail(command, "no VM is running; give --vio ADDRESS for services started by hand", USAGE)


def _list_of(vm: str) -> Any:
    """Return what asks for the consoles of a VM."""
    from splitvisor.net.pages import every  # slow to load
    from splitvisor.rpc import console_pb2

    return lambda stub, timeout: every(stub.ListConsoles, console_pb2.ListConsolesRequest(vm=vm), timeout)


def _address(command: str, vm: str, vio: str | None, unit: int) -> str:
    """Return the address of the back end that has a console; vio_service's for one that is not there, or not yet.

    unit: its unit address; 0: the VM's first one, which is vio_service's when that has any.
    """
    backends = vio_backends(command, vm, vio)
    if len(backends) > 1:
        from splitvisor.rpc import console_pb2_grpc  # slow to load

        for backend in backends:
            answer = ask_one(backend, console_pb2_grpc.ConsoleServiceStub, _list_of(vm))
            if isinstance(answer, str) and not unit:
                break  # Should vio_service come back, the first console may be one of its own.
            consoles = () if answer is None or isinstance(answer, str) else answer
            if any(unit in (0, console.unit_address) for console in consoles):
                return backend.address
    return backends[0].address


def _unit(command: str, text: str) -> int:
    try:
        unit = int(text, 0)
    except ValueError:
        unit = -1
    if not 0 <= unit < 1 << 32:
        fail(command, f"{text!r} is not a unit address; give a number such as 0x71000001", USAGE)
    return unit


def _target(command: str, vm: str, unit: str, force: bool, timeout: float, vio: str | None) -> Target:
    from splitvisor.terminal.script import WAIT_SECONDS, Target

    address = _unit(command, unit)
    return Target(_address(command, vm, vio, address), vm, address, force, min(timeout, WAIT_SECONDS))


def _bytes(command: str, text: str) -> bytes:
    from splitvisor.terminal.script import EscapeError, unescape

    try:
        return unescape(text)
    except EscapeError as error:
        fail(command, str(error), USAGE)


def _run(command: str, work: Coroutine[Any, Any, _T], late: str = "no answer in time") -> _T:
    """Run to the end; what goes wrong is one line and an exit status. late says what was not done in time."""
    from splitvisor.terminal.link import TerminalError

    try:
        return signals.run(work)
    except AddressError as error:
        fail(command, str(error), USAGE)
    except TerminalError as error:
        fail(command, str(error))
    except TimeoutError:
        fail(command, late, ExitStatus.TIMEOUT)


def _shown() -> Callable[[bytes], bytes]:
    """Return what passes a console's output on to stdout: a terminal must not answer what it finds there, to the shell."""
    from splitvisor.terminal.sequences import QueryFilter

    return QueryFilter().feed if os.isatty(1) else lambda data: data


async def _follow(
    address: str,
    request: console_pb2.ReadTranscriptRequest,
    first: console_pb2.ReadTranscriptResponse,
    shown: Callable[[bytes], bytes],
) -> None:
    from splitvisor.rpc import console_pb2
    from splitvisor.terminal.io import reader_gone, write_all
    from splitvisor.terminal.link import ConsoleLink, own_name
    from splitvisor.terminal.session import notify_on_stderr

    opening = console_pb2.ConsoleOpen(vm=request.vm, unit_address=request.unit_address, client_name=own_name())
    resume = (first.instance, first.end_position)
    link = ConsoleLink(address, opening, wait_seconds=DEADLINE_S, notify=notify_on_stderr, resume=resume)
    running = asyncio.create_task(link.run())

    async def print_all() -> None:
        while data := await link.read():
            await write_all(sys.stdout.fileno(), shown(data))
        await running

    tasks = {asyncio.create_task(print_all()), asyncio.create_task(reader_gone(sys.stdout.fileno()))}
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in (*tasks, running):
        task.cancel()
    await asyncio.gather(*tasks, running, return_exceptions=True)
    for task in done:
        task.result()
    if running.cancelled():
        raise typer.Exit(READER_GONE)


def _write(data: bytes) -> None:
    """Write to stdout at once. Raises OutputError."""
    sys.stdout.buffer.write(data)
    sys.stdout.flush()


def _line(each: console_pb2.Console) -> str:
    size = f"  {each.window_size.columns}x{each.window_size.rows}" if each.window_size.rows else ""
    kept = f"  {each.transcript}" if each.transcript else ""
    return (
        f"{each.vm}  {each.unit_address:#x}  {each.output_bytes} bytes out, {each.input_bytes} in  "
        f"{each.writer or 'nobody'} types{size}{kept}"
    )


def _client(client: console_pb2.ConsoleClient) -> str:
    return ", ".join(_client_parts(client))


def _client_parts(client: console_pb2.ConsoleClient) -> Iterator[str]:
    yield f"{client.name} {'types' if client.writer else 'reads'}, {client.attached_seconds:.0f} s"
    if client.behind_bytes:
        yield f"{client.behind_bytes} bytes behind"
    if client.skipped_bytes:
        yield f"slow: {client.skipped_bytes} bytes skipped"


def _fields(each: console_pb2.Console) -> dict[str, Any]:
    clients = [{field.name: getattr(client, field.name) for field in client.DESCRIPTOR.fields} for client in each.clients]
    for client in clients:
        client["attached_seconds"] = round(client["attached_seconds"], 3)
    own = {field.name: getattr(each, field.name) for field in each.DESCRIPTOR.fields}
    return own | {"clients": clients, "window_size": [each.window_size.rows, each.window_size.columns]}
