# SPDX-License-Identifier: GPL-2.0-or-later
"""ConsoleService: terminals attach to the consoles of this vio_service's VMs.

Each attachment is two loops: one moves requests into the Attachment, the other makes responses of what the Attachment has for the
terminal. Neither waits for the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from splitvisor.errors.problem import Problem
from splitvisor.errors.status import refuse
from splitvisor.limits import is_vm_name
from splitvisor.net.pages import PageError, console_key, page_of
from splitvisor.net.times import seconds
from splitvisor.rpc import console_pb2 as pb
from splitvisor.rpc import console_pb2_grpc
from splitvisor.trap.server import TrapServicer
from vio_service.console.console import INPUT_BYTES, Attachment, Console, ConsoleBusyError
from vio_service.console.directory import ConsoleNotFoundError, consoles_of, find_console
from vio_service.console.transcript import TranscriptDirectory

OUTPUT_CHUNK = 64 << 10
"""Bytes of output in one response."""
INPUT_CHUNK = 64 << 10
"""Bytes of input in one request, at most."""
MAX_WAIT_S = 60.0
MAX_CLIENT_NAME = 200
MAX_SIDE = 0xFFFF
"""Rows or columns of a terminal, as TIOCSWINSZ has them."""
TRANSCRIPT_READERS = 4
"""Transcripts that are being read at a time."""

_Context = grpc.aio.ServicerContext[pb.AttachConsoleRequest, pb.AttachConsoleResponse]


class _RefusedError(Exception):
    """Ends a call with a status; the text is for people."""

    def __init__(self, text: str, code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT, reason: str = "") -> None:
        super().__init__(text)
        self.code, self.reason = code, reason


class ConsoleServicer(console_pb2_grpc.ConsoleServiceServicer):
    """Serves ConsoleService for the VMs of a trap servicer.

    Args:
        traps: knows the VMs; its sessions are VioSessions.
        transcripts: where they are kept; None: they are not.
    """

    def __init__(self, traps: TrapServicer, transcripts: TranscriptDirectory | None = None) -> None:
        self._traps = traps
        self._transcripts = transcripts
        self._transcript_readers = 0

    async def ListConsoles(self, request: pb.ListConsolesRequest, context: Any) -> pb.ListConsolesResponse:
        """See the contract."""
        consoles = [console.describe() for console in consoles_of(self._traps, request.vm)]
        try:
            page, token = page_of(consoles, console_key, request)
        except PageError as error:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error)
        return pb.ListConsolesResponse(consoles=page, next_page_token=token)

    async def AttachConsole(
        self, request_iterator: AsyncIterator[pb.AttachConsoleRequest], context: _Context
    ) -> AsyncIterator[pb.AttachConsoleResponse]:
        """See the contract."""
        first = await anext(request_iterator, None)
        if first is None:
            return
        try:
            console = await self._find(first)
            attachment = _attach(console, first.open)
            discarded = console.discard_input() if first.open.discard_input and attachment.is_writer else 0
        except _RefusedError as error:
            await refuse(context, error.code, error, error.reason)
        receiver = asyncio.get_running_loop().create_task(_receive(request_iterator, attachment))
        receiver.add_done_callback(lambda _: attachment.wake.set())
        try:
            yield pb.AttachConsoleResponse(
                opened=pb.ConsoleOpened(
                    unit_address=console.unit_address,
                    offset=attachment.position,
                    input_window=INPUT_BYTES,
                    instance=console.instance,
                    input_received=console.input_received,
                    input_discarded=discarded,
                )
            )
            async for response in _responses(attachment, receiver):
                yield response
        except _RefusedError as error:
            await refuse(context, error.code, error, error.reason)
        finally:
            console.detach(attachment)
            receiver.cancel()
            await asyncio.gather(receiver, return_exceptions=True)

    async def ReadTranscript(self, request: pb.ReadTranscriptRequest, context: Any) -> AsyncIterator[pb.ReadTranscriptResponse]:
        """See the contract."""
        try:
            console = find_console(self._traps, request.vm, request.unit_address)
        except ConsoleNotFoundError as error:
            console, reason = None, str(error)
        unit = request.unit_address if console is None else console.unit_address
        directory = self._transcripts if is_vm_name(request.vm) else None
        if console is None and directory is not None:
            unit = unit or directory.first_unit(request.vm) or 0
            if not directory.file(request.vm, unit).exists():
                directory = None
        if console is None and directory is None:
            await refuse(context, grpc.StatusCode.NOT_FOUND, reason)
        if self._transcript_readers >= TRANSCRIPT_READERS:
            await refuse(
                context, grpc.StatusCode.RESOURCE_EXHAUSTED, Problem("too many transcripts are being read", "try again later")
            )
        self._transcript_readers += 1
        try:
            first = pb.ReadTranscriptResponse()
            if directory is not None:
                pieces = directory.newest(request.vm, unit, request.max_bytes)
                next(pieces)  # Opens the files: they end now where the console's output does.
            else:
                assert console is not None
                pieces = console.output.newest(request.max_bytes, OUTPUT_CHUNK)
            if console is not None:
                first = pb.ReadTranscriptResponse(instance=console.instance, end_position=console.output.end)
            yield first
            # In a thread: a file that is not in memory must not delay a guest.
            while data := await asyncio.to_thread(next, pieces, b""):
                yield pb.ReadTranscriptResponse(data=data)
        finally:
            self._transcript_readers -= 1

    async def _find(self, first: pb.AttachConsoleRequest) -> Console:
        """Return the console that was asked for, waiting for its VM when the terminal wants that."""
        _check_open(first)
        opening = first.open
        if self._traps.session(opening.vm) is None:
            await self._traps.wait_for_session(opening.vm, seconds(opening.wait))
            if self._traps.closed:  # Whoever attaches again while this process ends would be waited for.
                raise _RefusedError("vio_service shuts down", grpc.StatusCode.UNAVAILABLE)
        try:
            return find_console(self._traps, opening.vm, opening.unit_address)
        except ConsoleNotFoundError as error:
            raise _RefusedError(str(error), grpc.StatusCode.NOT_FOUND, error.reason) from error


def _check_open(request: pb.AttachConsoleRequest) -> None:
    if not request.HasField("open"):
        raise _RefusedError("the first message of an attachment is open")
    if not request.open.vm:
        raise _RefusedError("open names no VM")
    if not 0 <= seconds(request.open.wait) <= MAX_WAIT_S:
        raise _RefusedError(f"wait is {seconds(request.open.wait):g} s, 0 to {MAX_WAIT_S:g} s are possible")
    if len(request.open.client_name) > MAX_CLIENT_NAME or not request.open.client_name.isprintable():
        raise _RefusedError(f"client_name is not {MAX_CLIENT_NAME} printable characters or fewer")


def _attach(console: Console, opening: pb.ConsoleOpen) -> Attachment:
    client = opening.client_name or "a terminal"
    resume = opening.resume_position if opening.resume_instance == console.instance else None
    try:
        return console.attach(client, writer=opening.writer, force=opening.force, replay=opening.replay, resume=resume)
    except ConsoleBusyError as error:
        raise _RefusedError(str(error), grpc.StatusCode.FAILED_PRECONDITION, "CONSOLE_BUSY") from error


async def _receive(requests: AsyncIterator[pb.AttachConsoleRequest], attachment: Attachment) -> None:
    """Move the terminal's input to the guest until the terminal has no more. Raises _RefusedError."""
    may_type = attachment.is_writer
    async for request in requests:
        match request.WhichOneof("message"):
            case "input":
                if not may_type:
                    raise _RefusedError("input from a reader; open with writer set")
                if len(request.input) > INPUT_CHUNK:
                    raise _RefusedError(f"{len(request.input)} bytes of input in a message, at most {INPUT_CHUNK} are possible")
                await attachment.feed(request.input)
            case "window_size":
                size = request.window_size
                if max(size.rows, size.columns) > MAX_SIDE:
                    raise _RefusedError(f"a terminal of {size.rows} by {size.columns}, at most {MAX_SIDE} are possible")
                attachment.console.resize(attachment, size.rows, size.columns)
            case other:
                raise _RefusedError(f"unexpected message {other or 'without content'} from a terminal")
    attachment.console.release(attachment)


async def _responses(attachment: Attachment, receiver: asyncio.Task[None]) -> AsyncIterator[pb.AttachConsoleResponse]:
    """Produce acknowledgements and output until the attachment ends. Raises what the receiver raised."""
    while True:
        attachment.wake.clear()
        accepted = attachment.take_accepted()
        if accepted:
            yield pb.AttachConsoleResponse(input_accepted=accepted)
        skipped = attachment.take_skipped()
        if skipped:
            yield pb.AttachConsoleResponse(skipped=skipped)
            continue  # While that was sent, more may have gone.
        output = attachment.take_output(OUTPUT_CHUNK)
        if output:
            yield pb.AttachConsoleResponse(output=output)
            continue
        if attachment.end is not None:
            yield pb.AttachConsoleResponse(ended=pb.ConsoleEnded(reason=attachment.end.reason, text=attachment.end.text))
            return
        if receiver.done() and not receiver.cancelled():
            error = receiver.exception()
            if isinstance(error, _RefusedError):
                raise error
        await attachment.more()
