# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor dt`: the device trees of a VM, now and before."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from splitvisor.cli import dt_output as output
from splitvisor.cli.control import DEADLINE_S, FAILED, USAGE, fail, output_file, service_stub
from splitvisor.cli.dt_parent import parent
from splitvisor.cli.reader import end_without_reader
from splitvisor.machine.service_addresses import CONNECT_VARIABLE
from splitvisor.process.inputs import Pipes, read_input
from splitvisor.process.outputs import Content
from splitvisor.run.running_vms import running_vms
from splitvisor.tree import fdt
from splitvisor.tree.check import findings
from splitvisor.tree.diff import differences
from splitvisor.tree.dts import format_node, format_tree
from splitvisor.tree.fdt import FdtError, Node, Tree

dt = typer.Typer(
    help="Show a VM's device trees. VM may be omitted if this user runs only one machine. A revision is a number, "
    "[bold]head[/], or an origin for the newest of that kind: seed, cas, quiesce, update-dt, hotplug, restore.",
    no_args_is_help=True,
)
dt.command()(parent)

VmArgument = Annotated[str | None, typer.Argument(metavar="VM", help="The VM's name", show_default=False)]
AddressOption = Annotated[
    str | None,
    typer.Option("--address", "--hcall", metavar="ADDRESS", help="hcall_service \\[that of the run with the VM]"),
]
RevisionOption = Annotated[str, typer.Option("--revision", "-r", metavar="REVISION", help="Revision of the tree")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON")]


_BLOB = Content("a device tree", lambda file: file.read(4) == fdt.MAGIC.to_bytes(4))
_TEXT = Content("the text of a device tree", lambda file: file.read(256).lstrip().startswith(b"/dts-v1/;"))


@dataclass(frozen=True)
class _Trees:
    """The trees of one VM at its hcall_service."""

    command: str
    vm: str
    stub: Any
    messages: Any

    def history(self) -> list[Any]:
        """Return the revisions, the newest first."""
        from splitvisor.net.pages import every  # no command needs it at once

        return every(self.stub.ListRevisions, self.messages.ListRevisionsRequest(vm=self.vm), DEADLINE_S)

    def number(self, text: str) -> int:
        """Return the revision that a text means, 0 for the head."""
        if text in ("", "head"):
            return 0
        if text.isdecimal() and 0 < int(text) < 1 << 63:
            return int(text)
        if text not in output.ORIGINS.values():
            known = ", ".join(output.ORIGINS.values())
            fail(self.command, f"{text!r} is not a revision; give a number, head, or one of {known}", USAGE)
        found = next((each.number for each in self.history() if output.origin(each) == text), None)
        return int(found) if found is not None else fail(self.command, f"VM {self.vm!r} has no revision from {text}")

    def fetch(self, text: str) -> tuple[Any, bytes]:
        """Return a revision and its bytes."""
        request = self.messages.GetTreeRequest(vm=self.vm, revision=self.number(text))
        answer = self.stub.GetTree(request, timeout=DEADLINE_S)
        return answer.revision, answer.blob

    def read(self, text: str) -> tuple[Any, Tree]:
        """Return a revision and its tree."""
        revision, blob = self.fetch(text)
        return revision, fdt.read(blob)


@contextmanager
def _trees(command: str, vm: str | None, address: str | None) -> Iterator[_Trees]:
    from splitvisor.rpc import device_tree_pb2, device_tree_pb2_grpc  # slow to load

    command = f"dt {command}"
    name = vm or _only_vm(command, address)
    with service_stub(command, name, "hcall", address, device_tree_pb2_grpc.DeviceTreeServiceStub) as stub:
        try:
            yield _Trees(command, name, stub, device_tree_pb2)
        except FdtError as error:
            fail(command, f"not a device tree: {error}")


def _only_vm(command: str, address: str | None) -> str:
    if address is not None:
        fail(command, "name the VM; the store at --address may have several", USAGE)
    if os.environ.get(CONNECT_VARIABLE):
        fail(command, f"name the VM; {CONNECT_VARIABLE} has addresses of services, not names of VMs", USAGE)
    names = [vm.name for vm in running_vms()]
    if not names:
        fail(command, "no VM is running; name one, and give --address ADDRESS for services started by hand", USAGE)
    if len(names) > 1:
        fail(command, f"name the VM; running: {', '.join(sorted(names))}", USAGE)
    return names[0]


@dt.command()
def show(
    vm: VmArgument = None,
    path: Annotated[str, typer.Argument(metavar="PATH", help="The topmost node to print")] = "/",
    *,
    revision: RevisionOption = "head",
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a tree, or a node with all nodes below it, as [bold]dtc[/] does."""
    if vm is not None and vm.startswith("/"):
        path = vm
        vm = None
    with _trees("show", vm, address) as trees:
        found, tree = trees.read(revision)
        node = _node(trees, tree, found, path)
    if as_json:
        whole = {"vm": trees.vm, **output.revision_fields(found), "path": path, "node": output.node_fields(node)}
        typer.echo(json.dumps(whole, indent=2))
    else:
        output.print_dts(format_tree(tree) if path == "/" else format_node(node))


@dt.command()
def get(
    arguments: Annotated[list[str], typer.Argument(metavar="[VM] PATH [PROPERTY]")],
    *,
    revision: RevisionOption = "head",
    address: AddressOption = None,
    as_json: JsonOption = False,
    raw: Annotated[bool, typer.Option("--raw", help="Print only the property's bytes")] = False,
) -> None:
    """Print a property, or the names of a node's properties and children."""
    vm, rest = (None, arguments) if arguments[0].startswith("/") else (arguments[0], arguments[1:])
    if not 1 <= len(rest) <= 2 or not rest[0].startswith("/"):
        fail("dt get", "give [VM] PATH [PROPERTY], such as /chosen bootargs", USAGE)
    path, name = rest[0], rest[1] if len(rest) == 2 else None
    with _trees("get", vm, address) as trees:
        found, tree = trees.read(revision)
        node = _node(trees, tree, found, path)
        if name is None:
            output.print_names(node, as_json=as_json)
            return
        if name not in node.properties:
            fail(trees.command, f"{path} has no property {name!r} in revision {found.number}")
        value = node.properties[name]
    if raw:
        sys.stdout.buffer.write(value)
    elif as_json:
        typer.echo(json.dumps({"path": path, "name": name, "revision": found.number, **output.value_fields(value)}))
    else:
        output.print_value(value)


@dt.command()
def history(vm: VmArgument = None, *, address: AddressOption = None, as_json: JsonOption = False) -> None:
    """List the revisions, the newest first."""
    with _trees("history", vm, address) as trees:
        revisions = trees.history()
    if as_json:
        typer.echo(json.dumps([output.revision_fields(each) for each in revisions], indent=2))
        return
    for index, each in enumerate(revisions):
        output.print_revision(each, head=index == 0)


@dt.command()
def diff(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[VM] [FROM..TO]")] = None,
    *,
    address: AddressOption = None,
    as_json: JsonOption = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if there are differences")] = False,
) -> None:
    """Compare two revisions by path and property: seed..head without FROM..TO."""
    names = [argument for argument in arguments or [] if ".." not in argument]
    ranges = [argument for argument in arguments or [] if ".." in argument]
    if len(names) > 1 or len(ranges) > 1:
        fail("dt diff", "give [VM] [FROM..TO], such as seed..head", USAGE)
    first, _, second = (ranges[0] if ranges else "seed..head").partition("..")
    with _trees("diff", names[0] if names else None, address) as trees:
        before, old = trees.read(first)
        after, new = trees.read(second)
    changes = list(differences(old, new))
    if as_json:
        sides = {"from": output.revision_fields(before), "to": output.revision_fields(after)}
        changed = [output.change_fields(change) for change in changes]
        typer.echo(json.dumps({"vm": trees.vm, **sides, "changes": changed}, indent=2))
    else:
        output.print_changes(trees.vm, before, after, changes)
    if exit_code and changes:
        raise typer.Exit(1)


@dt.command()
def export(
    vm: VmArgument = None,
    *,
    file: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Output file; a name in .dts selects text")] = "-",
    text: Annotated[bool, typer.Option("--dts", help="Write text, whatever the file's name")] = False,
    revision: RevisionOption = "head",
    address: AddressOption = None,
) -> None:
    """Export a tree: its original bytes, or text."""
    as_text = text or file.endswith(".dts")
    if file == "-" and not as_text and sys.stdout.isatty():
        fail("dt export", "the output is binary; give --output FILE or --dts", USAGE)
    written = None if file == "-" else output_file("dt export", Path(file), _TEXT if as_text else _BLOB)
    with _trees("export", vm, address) as trees:
        _, blob = trees.fetch(revision)
        data = "".join(f"{line}\n" for line in format_tree(fdt.read(blob))).encode() if as_text else blob
    if written is None:
        sys.stdout.buffer.write(data)
        return
    try:
        written.write(data)
    except OSError as error:
        fail("dt export", f"{file}: {error.strerror}")


@dt.command()
def validate(
    vm: VmArgument = None,
    *,
    file: Annotated[Path | None, typer.Option(metavar="FILE.dtb", help="Check this file instead of a stored tree")] = None,
    revision: RevisionOption = "head",
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a tree: its format, then the properties that every PAPR guest needs. Exits with 1 if a check fails."""
    if file is not None:
        try:
            name, blob = str(file), read_input(Pipes().file(file), fdt.MAX_SIZE)
        except OSError as error:
            fail("dt validate", f"{file}: {error.strerror}", USAGE)
    else:
        with _trees("validate", vm, address) as trees:
            found, blob = trees.fetch(revision)
            name = f"{trees.vm} revision {found.number} ({output.origin(found)})"
    try:
        wrong = [(finding.path, finding.text) for finding in findings(fdt.read(blob))]
    except FdtError as error:
        wrong = [("", str(error))]
    if as_json:
        listed = [{"path": path, "text": text} for path, text in wrong]
        typer.echo(json.dumps({"tree": name, "size": len(blob), "findings": listed}, indent=2))
    else:
        output.print_findings(name, len(blob), wrong)
    if wrong:
        raise typer.Exit(FAILED)


@dt.command()
def watch(
    vm: VmArgument = None,
    *,
    count: Annotated[int | None, typer.Option(metavar="N", min=1, help="End after N revisions")] = None,
    show_diff: Annotated[bool, typer.Option("--diff", help="Show the changes of each")] = False,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print existing revisions, then new ones as they are stored; [bold]^C[/] quits."""
    end_without_reader()
    with _trees("watch", vm, address) as trees:
        stream = trees.stub.WatchRevisions(trees.messages.WatchRevisionsRequest(vm=trees.vm))
        previous: tuple[Any, Tree] | None = None
        try:
            for number, answer in enumerate(stream, 1):
                each = answer.revision
                if as_json:
                    typer.echo(json.dumps(output.revision_fields(each)))
                else:
                    output.print_revision(each)
                if show_diff and not as_json:
                    current = trees.read(str(each.number))
                    if previous is not None:
                        changes = list(differences(previous[1], current[1]))
                        output.print_changes(trees.vm, previous[0], current[0], changes)
                    previous = current
                sys.stdout.flush()
                if number == count:
                    break
        finally:
            stream.cancel()


def _node(trees: _Trees, tree: Tree, revision: Any, path: str) -> Node:
    return tree.root.find(path) or fail(trees.command, f"no node {path!r} in revision {revision.number}")
