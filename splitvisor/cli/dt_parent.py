# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor dt parent`: the interrupt parent of a device added now, and its source."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from splitvisor.cli.control import DEADLINE_S, service_stub


def parent(
    vm: Annotated[str, typer.Argument(metavar="VM", help="The VM's name")],
    *,
    hcall: Annotated[str | None, typer.Option(metavar="ADDRESS", help="hcall_service \\[that of the run with the VM]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
) -> None:
    """Show the interrupt parent for a device that is added to a running guest: from its stored tree, or the fixed fallback."""
    from splitvisor.rpc import device_tree_pb2, device_tree_pb2_grpc  # slow to load

    with service_stub("dt parent", vm, "hcall", hcall, device_tree_pb2_grpc.DeviceTreeServiceStub) as trees:
        answer = trees.GetInterruptParent(device_tree_pb2.GetInterruptParentRequest(vm=vm), timeout=DEADLINE_S)
    stored = answer.source == device_tree_pb2.INTERRUPT_PARENT_SOURCE_STORED_TREE
    if as_json:
        source = "stored-tree" if stored else "fallback"
        fields = {"phandle": answer.phandle, "source": source, "revision": answer.revision}
        fields |= {"path": answer.path} if stored else {"reason": answer.reason}
        typer.echo(json.dumps(fields))
    elif stored:
        typer.echo(f"{answer.phandle:#x}  from the stored tree: {answer.path} in revision {answer.revision}")
    else:
        typer.echo(f"{answer.phandle:#x}  the fixed fallback: {answer.reason}")
