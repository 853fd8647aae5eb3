# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor record`: look at recordings that `splitvisor run --record` made."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from splitvisor.cli.control import FAILED, USAGE, fail
from splitvisor.cli.seconds import seconds
from splitvisor.process.inputs import Pipes, open_input

if TYPE_CHECKING:
    from splitvisor.recording.conversation import Item, Recording
    from splitvisor.recording.statistics import Statistics

record = typer.Typer(help="Show and compare recordings of [bold]splitvisor run --record FILE[/].", no_args_is_help=True)

_pipes = Pipes()
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A recording")]
LinkOption = Annotated[list[str] | None, typer.Option("--link", metavar="NAME", help="Only this back end; may be repeated")]
CallOption = Annotated[list[str] | None, typer.Option("--call", metavar="NAME", help="Only this call; may be repeated")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON")]


@contextmanager
def _opened(command: str, path: Path, *, note: bool = True) -> Iterator[Recording]:
    """Yield a recording, to be read to its end; what is wrong with it ends the program, that it was cut off is noted after."""
    from splitvisor.recording import RecordingError  # protobuf and zstandard are slow to load
    from splitvisor.recording.conversation import Recording
    from splitvisor.recording.file import RecordingReader

    try:
        with open_input(_pipes.file(path)) as file:
            reader = RecordingReader(file, str(path))
            recording = Recording(reader, str(path))
            yield recording
        if note and recording.note(reader.cut):
            typer.echo(f"note: {recording.note(reader.cut)}", err=True)
    except OSError as error:
        fail(f"record {command}", f"{path}: {error.strerror or error}", USAGE)
    except RecordingError as error:
        fail(f"record {command}", str(error), USAGE)


@dataclass(frozen=True)
class _Filter:
    """Which items are wanted."""

    calls: frozenset[str]
    vcpu: int | None
    start_ns: int
    end_ns: int

    def wants(self, recording: Recording, link: str, item: Item) -> bool:
        """Whether an item is shown. A filter for calls or a vCPU leaves everything else out."""
        from splitvisor.recording.conversation import Step

        if not self.start_ns <= item.time_ns <= self.end_ns:
            return False
        if not self.calls and self.vcpu is None:
            return True
        offer = next((each.offer for each in recording.conversations if each.name == link), None)
        return (
            isinstance(item, Step)
            and offer is not None
            and any(
                self.vcpu in (None, trap.vcpu) and (not self.calls or offer.routes[trap.route].name in self.calls)
                for trap in item.traps
            )
        )


@record.command()
def show(
    file: FileArgument,
    *,
    link: LinkOption = None,
    call: CallOption = None,
    vcpu: Annotated[int | None, typer.Option(metavar="N", help="Only calls of this vCPU")] = None,
    start: Annotated[float, typer.Option("--from", metavar="S", parser=seconds(0), help="Start at this second")] = 0.0,
    end: Annotated[
        float, typer.Option("--to", metavar="S", parser=seconds(0), help="Stop at this second", show_default=False)
    ] = 1e9,
    as_json: JsonOption = False,
) -> None:
    """Print calls with their answers, decoded, one per line. With --json, each line is an object."""
    from splitvisor.recording.text import item_lines
    from splitvisor.rpc import trap_pb2

    wanted = _Filter(frozenset(call or ()), vcpu, int(start * 1e9), int(end * 1e9))
    with _opened("show", file) as recording:
        offers = {each.name: each for each in recording.conversations}
        unknown = sorted(set(link or ()) - set(offers))
        if unknown:
            fail("record show", f"no back end {unknown[0]!r} in {file}; it has {', '.join(offers)}", USAGE)
        for name, item in recording.items(*(link or ())):
            if not wanted.wants(recording, name, item):
                continue
            time_ns = item.time_ns
            offer = (offers[name].offer if name else None) or trap_pb2.Offer()
            if as_json:
                typer.echo(json.dumps({"time_ns": time_ns, "link": name, **_fields(item), "text": item_lines(item, offer)}))
                continue
            for line in item_lines(item, offer):
                typer.echo(f"{time_ns / 1e9:11.6f}  {name or 'machine':<18} {line}")
        if recording.end is not None and not link and not as_json:
            typer.echo(f"ended: {recording.end.reason.encode('unicode_escape').decode()}")


def _fields(item: Item) -> dict[str, Any]:
    from google.protobuf.json_format import MessageToDict
    from google.protobuf.message import Message

    messages = {name: value for name, value in vars(item).items() if isinstance(value, Message)}
    fields = {name: MessageToDict(value, preserving_proto_field_name=True) for name, value in messages.items()}
    return {"kind": type(item).__name__.lower(), **fields}


@record.command()
def stats(file: FileArgument, *, as_json: JsonOption = False) -> None:
    """Show how often each call was made and how long the guest waited for it."""
    from splitvisor.recording.statistics import statistics

    with _opened("stats", file) as recording:
        found = statistics(recording)
        if as_json:
            typer.echo(json.dumps(_stats_fields(found), indent=2))
            return
        typer.echo(
            f"{found.duration_ns / 1e9:.3f} s, {found.messages} messages, {found.message_bytes} bytes; "
            f"terminals: {found.written} bytes written, {found.typed} read"
        )
        typer.echo(f"{'calls':>8} {'posted':>8} {'mean us':>9} {'max us':>9}  call")
        for each in found.calls:
            waited = f"{each.mean_us:9.0f} {each.longest_ns / 1000:9.0f}" if each.count > each.posted else f"{'':>19}"
            typer.echo(f"{each.count:>8} {each.posted:>8} {waited}  {_plain(each.name)} ({_plain(each.link)})")
        for count in found.local:
            typer.echo(f"{count.count:>8} {'':>28}  {_plain(count.name)} (local)")
        for source, times in sorted(found.interrupts.items()):
            typer.echo(f"{times:>8} {'':>28}  interrupt {source:#x}, outside of calls")
        if found.waits:
            typer.echo(f"recording delayed the machine {found.waits} times")


def _stats_fields(found: Statistics) -> dict[str, Any]:
    return {
        "seconds": found.duration_ns / 1e9,
        "messages": found.messages,
        "message_bytes": found.message_bytes,
        "connections": found.connections,
        "terminal_bytes": {"written": found.written, "read": found.typed},
        "waits": found.waits,
        "interrupts": {f"{source:#x}": count for source, count in sorted(found.interrupts.items())},
        "calls": [
            {
                "link": each.link, "name": each.name, "count": each.count, "posted": each.posted,
                "mean_us": round(each.mean_us, 1), "max_us": each.longest_ns / 1000,
            }
            for each in found.calls
        ],
        "local": [{"name": count.name, "count": count.count} for count in found.local],
    }  # fmt: skip


@record.command()
def diff(
    before: FileArgument,
    after: FileArgument,
    *,
    link: LinkOption = None,
    call: CallOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two recordings except for times; expected differences, such as the time of day, are left out.

    Exit status: 0 no difference, 1 there are differences.
    """
    from splitvisor.recording.diff import changes, entries

    with _opened("diff", before, note=False) as one, _opened("diff", after, note=False) as other:
        names = [name for name in dict.fromkeys((*one.start.backends, *other.start.backends)) if not link or name in link]
    if link and not names:
        fail("record diff", f"neither recording has {', '.join(link)}", USAGE)
    wanted = _wanted(frozenset(call or ()))
    found = 0
    for name in names:
        # Each back end in turn: what is kept in memory does not depend on how long the recordings are.
        last = name == names[-1]
        with _opened("diff", before, note=last) as one, _opened("diff", after, note=last) as other:
            for change in changes(entries(one, name, wanted), entries(other, name, wanted)):
                found += 1
                if as_json:
                    typer.echo(json.dumps({"link": name, "sign": change.sign, "text": change.entry.text}))
                else:
                    typer.echo(f"{change.sign} {_plain(name):<18} {change.entry.text}")
    if found:
        raise typer.Exit(FAILED)


def _wanted(calls: frozenset[str]) -> Callable[[str], bool]:
    return lambda name: not calls or name in calls


def _plain(text: str) -> str:
    """A name from a file, without what a terminal would obey."""
    return text.encode("unicode_escape").decode("ascii")
