# SPDX-License-Identifier: GPL-2.0-or-later
"""The back end's server of the trap stream: which VM a connection belongs to, and what comes in.

See proto/splitvisor/trap/v1/trap.proto for the contract; VmLink keeps what must outlive a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import grpc
import structlog

from splitvisor.declarations.session import Session
from splitvisor.declarations.state import StateError
from splitvisor.errors.status import refuse
from splitvisor.limits import MAX_VCPUS, MEMORY_MAX, VM_NAME_RULE, is_vm_name
from splitvisor.observe.metrics import ATTACHED_VMS, Sample, Source
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.rpc import trap_pb2_grpc
from splitvisor.trap.acknowledgements import AcknowledgementSchedule
from splitvisor.trap.connection import Connection, ContractError, TrapContext
from splitvisor.trap.features import STATE_FOLLOWS, UnknownFeatureError, check_features
from splitvisor.trap.handler_times import HandlerObserver, HandlerTimes
from splitvisor.trap.link import SessionFactory, VmLink
from splitvisor.trap.session_state import received_state
from splitvisor.trap.socket_peer import SocketPeer
from splitvisor.trap.trap_socket import connect

MAX_VMS = 256
"""VMs that one back end keeps; the one that was away longest makes room for a new one."""

log = structlog.get_logger()


class _ClosedError(Exception):
    """The service ends; a new connection would only be waited for."""


_REFUSALS: Mapping[type[Exception], grpc.StatusCode] = {
    _ClosedError: grpc.StatusCode.UNAVAILABLE,
    ContractError: grpc.StatusCode.ALREADY_EXISTS,
    UnknownFeatureError: grpc.StatusCode.FAILED_PRECONDITION,
    ValueError: grpc.StatusCode.INVALID_ARGUMENT,
}
"""Why a VM is not taken, and how its cpu_service is told."""


class TrapServicer(trap_pb2_grpc.TrapServiceServicer):
    """Serves TrapService for one kind of session.

    Args:
        backend: this back end's name, for offers and logs.
        factory: makes the session of a VM.
    """

    def __init__(self, backend: str, factory: SessionFactory) -> None:
        self._backend = backend
        self._factory = factory
        self._links: dict[str, VmLink] = {}
        self._changed = asyncio.Condition()
        self._attaching = asyncio.Lock()
        self._observers: list[HandlerObserver] = []
        self.closed = False
        """No VM comes any more: the service ends."""
        self._schedule = AcknowledgementSchedule()

    def observe(self, observer: HandlerObserver) -> None:
        """Let an observer see every call of VMs that attach from now on."""
        self._observers.append(observer)

    def measure(self) -> Source:
        """Begin to take times, see Started.measure."""
        times = HandlerTimes()
        self.observe(times)

        def samples() -> Iterator[Sample]:
            yield Sample(ATTACHED_VMS, (), sum(link.connection is not None for link in self._links.values()))
            yield from times.samples()

        return samples

    def sessions(self) -> dict[str, Session]:
        """Every VM's session by name."""
        return {name: link.session for name, link in self._links.items() if not link.restoring}

    def session(self, vm: str) -> Session | None:
        """One VM's session; None when it is not here."""
        link = self._links.get(vm)
        return None if link is None or link.restoring else link.session

    async def wait_for_session(self, vm: str, timeout: float) -> Session | None:
        """Return a VM's session as soon as it is here; None after timeout seconds, or when this service ends."""
        try:
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(lambda: self.closed or self.session(vm) is not None)
        except TimeoutError:
            return None
        return self.session(vm)

    async def close(self) -> None:
        """Close every session and take no more; for the service's shutdown."""
        self.closed = True  # cpu_service is back at once; its new connection would be waited for.
        await self._tell_changed()
        for name in list(self._links):
            link = self._links.pop(name)
            if link.connection is not None:
                link.connection.end(f"{self._backend} shuts down")
            await link.close()

    async def Attach(  # type: ignore[override]  # the stub knows async generators only; this one writes through its context
        self, request_iterator: AsyncIterator[pb.AttachRequest], context: TrapContext
    ) -> None:
        """See the contract."""
        hello = await anext(request_iterator, None)
        if hello is None:
            return
        if not hello.HasField("hello"):
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "the first message of a trap stream is hello")
        structlog.contextvars.bind_contextvars(vm=hello.hello.vm)
        try:
            link = await self._link(hello.hello)
        except tuple(_REFUSALS) as error:
            await refuse(context, next(code for kind, code in _REFUSALS.items() if isinstance(error, kind)), error)
        if hello.hello.beginning in STATE_FOLLOWS:
            await self._restore(link, request_iterator, context)
        peer = await _connect(link, hello.hello)
        try:
            await self._attached(link, hello.hello, peer, request_iterator, context)
        finally:
            if peer is not None:
                peer.close()

    async def _attached(
        self,
        link: VmLink,
        hello: pb.Hello,
        peer: SocketPeer | None,
        requests: AsyncIterator[pb.AttachRequest],
        context: TrapContext,
    ) -> None:
        """Serve a connection from its offer to its end."""
        task = asyncio.current_task()
        assert task is not None
        connection = Connection(context, task)
        offer = await link.offer(self._backend, hello)
        offer.socket_connected = peer is not None
        await connection.write(pb.AttachResponse(offer=offer))
        link.attach(connection, hello)
        if self.closed:
            connection.end(f"{self._backend} shuts down")
        if hello.beginning == pb.BEGINNING_RUNNING:
            await link.session.attached()  # Else nothing was lost on the way: what was pulsed before is in the restored state.
            if not hello.paused:
                link.session.continued()
        log.info("attached", incarnation=link.incarnation, restored=hello.beginning in STATE_FOLLOWS)
        try:
            if await self._serve(link, connection, peer, requests):
                await link.acknowledge_all()
                await self._drop(link)
        except ContractError as error:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error)
        except asyncio.CancelledError:
            if not connection.end_reason:
                raise
            await refuse(context, grpc.StatusCode.UNAVAILABLE, connection.end_reason)
        finally:
            link.detach(connection)

    async def _serve(
        self, link: VmLink, connection: Connection, peer: SocketPeer | None, requests: AsyncIterator[pb.AttachRequest]
    ) -> bool:
        """Take the requests of a connection, to its end. Returns whether the VM has ended. Raises ContractError."""
        async for request in requests:
            if request.HasField("move"):
                if peer is None:
                    raise ContractError("the stream moves to a socket that is not connected")
                return await self._serve_socket(link, connection, peer)
            if request.HasField("detach"):
                log.info("detached", reason=request.detach.reason)
                return True
            response = _handle(link, request, request.WhichOneof("message"))
            if response is not None:
                await connection.write(response)
        return False

    async def _serve_socket(self, link: VmLink, connection: Connection, peer: SocketPeer) -> bool:
        """The same, once the stream has moved to a socket."""
        detached = False

        def take(request: pb.AttachRequest) -> bool:
            nonlocal detached
            kind = request.WhichOneof("message")
            if kind == "detach":
                log.info("detached", reason=request.detach.reason)
                detached = True
                return False
            response = _handle(link, request, kind)
            if response is not None:
                connection.send(response)
            return True

        connection.move(peer)
        await peer.serve(take, link.turn)
        return detached

    async def _restore(self, link: VmLink, requests: AsyncIterator[pb.AttachRequest], context: TrapContext) -> None:
        """Take the state that follows a hello, or end the connection."""
        try:
            await link.restore(await received_state(requests, self._backend))
        except ContractError as error:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error)
        except StateError as error:
            await self._drop(link)
            await refuse(context, grpc.StatusCode.FAILED_PRECONDITION, error)
        except Exception as error:
            log.exception("state not restored", vm=link.name)
            await self._drop(link)
            await refuse(context, grpc.StatusCode.FAILED_PRECONDITION, f"{self._backend}: its state cannot be restored: {error}")
        await self._tell_changed()

    async def _tell_changed(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _drop(self, link: VmLink) -> None:
        if self._links.get(link.name) is link:
            del self._links[link.name]
        await link.close()

    async def _link(self, hello: pb.Hello) -> VmLink:
        async with self._attaching:
            if self.closed:
                raise _ClosedError(f"{self._backend} shuts down")
            check_features(hello.features, "cpu_service", self._backend)
            if hello.beginning not in pb.Beginning.values() or hello.beginning == pb.BEGINNING_UNSPECIFIED:
                raise ValueError(f"{hello.beginning} is none of Beginning; say in hello what the devices begin with")
            known = self._links.get(hello.vm)
            if known is not None and known.incarnation == hello.incarnation:
                return known
            if known is not None and known.incarnation > hello.incarnation:
                raise ContractError(f"a newer cpu_service is attached for VM {hello.vm!r}", "stop it or choose another name")
            if not is_vm_name(hello.vm):
                raise ValueError(f"VM name {hello.vm!r}: give {VM_NAME_RULE}")
            if not 1 <= hello.vcpus <= MAX_VCPUS or not 0 < hello.ram_bytes <= MEMORY_MAX:
                raise ValueError(f"a VM has 1 to {MAX_VCPUS} vCPUs and at most {MEMORY_MAX >> 30} GiB of RAM")
            if known is not None:  # What it makes durable is there before its successor looks for it.
                if known.connection is not None:
                    known.connection.end("a newer cpu_service took over")
                del self._links[hello.vm]
                await known.close(replaced=True)
            elif len(self._links) >= MAX_VMS:
                await self._make_room()
            link = VmLink(hello, self._factory, self._schedule, tuple(self._observers))
            if hello.beginning not in STATE_FOLLOWS:
                try:
                    await link.session.begin()
                except BaseException:
                    await link.close()
                    raise
            self._links[hello.vm] = link
        await self._tell_changed()
        return link

    async def _make_room(self) -> None:
        away = next((name for name, link in self._links.items() if link.connection is None), None)
        if away is None:
            raise ContractError(f"{self._backend} serves {MAX_VMS} VMs already")
        log.warning("a VM that was away made room for a new one", evicted=away)
        await self._links.pop(away).close()


def _handle(link: VmLink, request: pb.AttachRequest, kind: str | None) -> pb.AttachResponse | None:
    """Take a request of a kind. Returns what to send at once. Raises ContractError."""
    match kind:
        case "posted" | "trap" | "reset" | "save_state" | "resumed":
            return link.receive(request)
        case "memory_result":
            link.answer(request.memory_result.id, request.memory_result)
        case "invoke_result":
            link.answer(request.invoke_result.id, request.invoke_result)
        case "continued":  # Not behind traps: one may wait for a device that waits for this.
            link.session.continued()
        case other:
            raise ContractError(f"unexpected message {other or 'without content'} on a trap stream")
    return None


async def _connect(link: VmLink, hello: pb.Hello) -> SocketPeer | None:
    """Connect to the socket that a connection may move to; None: it stays where it is."""
    if not hello.socket_path or not link.ram_mapped:
        return None
    try:
        return await SocketPeer.open(connect(Path(hello.socket_path), Path(hello.ram_path)))
    except OSError as error:
        log.info("the trap stream stays on gRPC", reason=str(error))
        return None
