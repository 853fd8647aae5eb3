# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor trace VM`: the guest's calls as they return."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from splitvisor.cli.control import USAGE, fail, machine_stub
from splitvisor.cli.reader import end_without_reader
from splitvisor.cli.seconds import LIMIT, seconds

Vm = Annotated[str, typer.Argument(metavar="VM", help="The VM's name")]


def trace(
    vm: Vm,
    *,
    call: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Only calls of this name: 'H_PUT_*', getprop")] = None,
    owner: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only calls of this owner: vio_service, local")] = None,
    vcpu: Annotated[list[int] | None, typer.Option(metavar="N", min=0, max=7, help="Only calls of this vCPU")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only failed calls")] = False,
    slower: Annotated[
        float, typer.Option(metavar="MS", parser=seconds(0), help="Only calls that took longer, in milliseconds")
    ] = 0.0,
    local: Annotated[
        bool, typer.Option("--local", help="Also calls that cpu_service carries out itself, which are most calls")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line")] = False,
    count: Annotated[int | None, typer.Option(metavar="N", min=1, help="End after N calls")] = None,
    seconds: Annotated[float | None, typer.Option(metavar="S", parser=LIMIT, help="End after S seconds")] = None,
    cpu: Annotated[str | None, typer.Option(metavar="ADDRESS", help="cpu_service \\[that of the run with the VM]")] = None,
) -> None:
    """Show a guest's hypercalls, RTAS calls and Open Firmware services as they return: name, arguments, result, time.

    A call must match one of the options of each kind. The guest does not wait: calls too fast
    to show are dropped and counted. ^C quits.

    Exit status: 0 ended as asked or with the guest, 1 no answer, 2 wrong usage.
    """
    import grpc  # slow to load

    from splitvisor.errors.status import problem_in
    from splitvisor.net.times import duration
    from splitvisor.observe.trap_text import as_line, as_object
    from splitvisor.rpc import machine_pb2

    request = machine_pb2.WatchTrapsRequest(
        vm=vm, calls=call or (), owners=owner or (), vcpus=vcpu or (), failed=failed, slower_than=duration(slower / 1e3),
        local=local or "local" in (owner or ()),
    )  # fmt: skip
    write: Callable[[Any], str] = (lambda each: json.dumps(as_object(each))) if as_json else as_line
    missed: Callable[[int], None] = _missed_as_json if as_json else _missed_as_line
    end_without_reader()
    with machine_stub("trace", vm, cpu) as machine:
        responses = machine.WatchTraps(request, timeout=seconds)
        watching = False
        try:
            watching = responses.initial_metadata() is not None and responses.is_active()
            _show(_calls(responses, missed), write, count)
        except grpc.RpcError as error:
            code = error.code()
            if code is grpc.StatusCode.INVALID_ARGUMENT:
                fail("trace", str(problem_in(error)), USAGE)
            ended = watching and code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)  # with its cpu_service
            if code is not grpc.StatusCode.DEADLINE_EXCEEDED and not ended:
                raise
        finally:
            responses.cancel()


def _calls(responses: Any, missed: Callable[[int], None]) -> Iterator[Any]:
    for response in responses:
        if response.missed:
            missed(response.missed)
        yield from response.traps


def _show(calls: Iterator[Any], write: Callable[[Any], str], count: int | None) -> None:
    for number, each in enumerate(calls, 1):
        print(write(each), flush=True)
        if number == count:
            return


def _missed_as_line(missed: int) -> None:
    print(f"splitvisor trace: {missed} calls were too fast and are not shown", file=sys.stderr, flush=True)


def _missed_as_json(missed: int) -> None:
    print(json.dumps({"missed": missed}), flush=True)
