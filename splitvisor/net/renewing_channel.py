# SPDX-License-Identifier: GPL-2.0-or-later
"""Channels with TLS that take new certificate files for their next call. gRPC's own keep what they were made with.

A channel here is a row of gRPC's channels, one per state of the files. Calls begin on the newest; an older one is closed when its
last call has ended, so a stream outlives the certificate that it began with.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio
import structlog

from splitvisor.net.addresses import Address
from splitvisor.net.tls_files import Credentials, Stamp, TlsError, TlsFiles, tls_files

_log = structlog.get_logger()


class _Generation:
    """One of gRPC's channels, and how many calls are under way on it."""

    def __init__(self, channel: Any, stamp: Stamp) -> None:
        self.channel, self.stamp = channel, stamp
        self._calls = 0
        self._lock = threading.Lock()
        self._methods: dict[tuple[str, str], Any] = {}

    @property
    def is_idle(self) -> bool:
        """True when no call is under way."""
        return self._calls == 0

    def method(self, kind: str, path: str, serializers: tuple[Any, ...]) -> Any:
        """Return what makes calls of a method here."""
        made = self._methods.get((kind, path))
        if made is None:
            made = self._methods[kind, path] = getattr(self.channel, kind)(path, *serializers)
        return made

    def begin(self) -> None:
        """Count a call."""
        with self._lock:
            self._calls += 1

    def end(self, _call: object = None) -> None:
        """Count its end."""
        with self._lock:
            self._calls -= 1


class _Row:
    """The channels of one address, the newest first in use.

    Args:
        address: speaks TLS.
        make: opens a channel with credentials.
        close: closes one.

    Raises TlsError when there is no usable certificate.
    """

    def __init__(self, address: Address, make: Callable[[grpc.ChannelCredentials], Any], close: Callable[[Any], None]) -> None:
        self._files: TlsFiles = tls_files(address.text)
        self._make, self._close_channel = make, close
        self._lock = threading.Lock()
        self._retired: list[_Generation] = []
        self._closed = False
        stamp = self._files.stamp()
        self._newest = _Generation(make(_channel_credentials(self._files.load())), stamp)
        self._refused = stamp

    def newest(self) -> Any:
        """Return the channel that was opened last."""
        return self._newest.channel

    def begin(self) -> _Generation:
        """Return the channel for a call that begins: from files that are new and usable, else the one before."""
        stamp = self._files.stamp()
        with self._lock:
            if stamp not in (self._newest.stamp, self._refused) and not self._closed:
                self._renew(stamp)
            self._newest.begin()
            idle = [generation for generation in self._retired if generation.is_idle]
            self._retired = [generation for generation in self._retired if not generation.is_idle]
            newest = self._newest
        for generation in idle:
            self._close_channel(generation.channel)
        return newest

    def _renew(self, stamp: Stamp) -> None:
        try:
            credentials = self._files.load()
        except TlsError as error:
            self._refused = stamp
            if structlog.is_configured():  # Else this is a command, whose output is not for logs.
                _log.warning("new certificate not loaded", reason=str(error))
            return
        self._retired.append(self._newest)
        self._newest = _Generation(self._make(_channel_credentials(credentials)), stamp)
        if structlog.is_configured():
            _log.info("new certificate loaded", file=str(self._files.certificate))

    def close(self) -> Sequence[Any]:
        """Renew no more; return the channels that are open, to be closed."""
        with self._lock:
            self._closed = True
            retired, self._retired = self._retired, []
        return [generation.channel for generation in (self._newest, *retired)]


def _channel_credentials(credentials: Credentials) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(credentials.authority, credentials.key, credentials.certificate)


_Arguments = Mapping[str, Any]


class _Method:
    """Makes calls of one method, each on the channel that is newest when it begins."""

    def __init__(self, row: _Row, kind: str, path: str, *serializers: Any) -> None:
        self._row, self._kind, self._path, self._serializers = row, kind, path, serializers

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Make a call as gRPC's own do."""
        return self._begin("__call__", arguments, named)

    def _begin(self, how: str, arguments: Sequence[Any], named: _Arguments) -> Any:
        generation = self._row.begin()
        try:
            call = getattr(generation.method(self._kind, self._path, self._serializers), how)(*arguments, **named)
        except BaseException:
            generation.end()
            raise
        if not self._ends_later(call, generation.end):
            generation.end()
        return call

    def _ends_later(self, call: Any, ended: Callable[[object], None]) -> bool:
        """Have ended called when a call ends; False when it has already."""
        call.add_done_callback(ended)
        return True


class _BlockingMethod(_Method):
    """The same for channels that block: what takes one response returns it, or a call when asked for its future."""

    def with_call(self, *arguments: Any, **named: Any) -> Any:
        """See grpc.UnaryUnaryMultiCallable."""
        return self._begin("with_call", arguments, named)

    def future(self, *arguments: Any, **named: Any) -> Any:
        """See grpc.UnaryUnaryMultiCallable."""
        return self._begin("future", arguments, named)

    def _ends_later(self, call: Any, ended: Callable[[object], None]) -> bool:
        return isinstance(call, grpc.RpcContext) and call.add_callback(lambda: ended(None))


class RenewingChannel(grpc.Channel):
    """A channel that blocks, with TLS.

    Args:
        address: speaks TLS.
        options: of gRPC's channels.

    Raises TlsError when this process has no usable certificate.
    """

    def __init__(self, address: Address, options: Sequence[tuple[str, int]]) -> None:
        def make(credentials: grpc.ChannelCredentials) -> grpc.Channel:
            return grpc.secure_channel(address.target, credentials, options=options)

        self._row = _Row(address, make, lambda channel: channel.close())

    def subscribe(self, callback: Any, try_to_connect: bool | None = False) -> None:
        """See grpc.Channel; subscribes to the newest channel."""
        self._row.newest().subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Any) -> None:
        """See grpc.Channel."""
        self._row.newest().unsubscribe(callback)

    def unary_unary(self, method: str, *serializers: Any, **named: Any) -> Any:
        """See grpc.Channel."""
        return self._method("unary_unary", method, serializers, named)

    def unary_stream(self, method: str, *serializers: Any, **named: Any) -> Any:
        """See grpc.Channel."""
        return self._method("unary_stream", method, serializers, named)

    def stream_unary(self, method: str, *serializers: Any, **named: Any) -> Any:
        """See grpc.Channel."""
        return self._method("stream_unary", method, serializers, named)

    def stream_stream(self, method: str, *serializers: Any, **named: Any) -> Any:
        """See grpc.Channel."""
        return self._method("stream_stream", method, serializers, named)

    def _method(self, kind: str, path: str, serializers: tuple[Any, ...], named: _Arguments) -> _BlockingMethod:
        return _BlockingMethod(self._row, kind, path, *serializers, *_serializers(named))

    def close(self) -> None:
        """See grpc.Channel."""
        for channel in self._row.close():
            channel.close()

    def __enter__(self) -> RenewingChannel:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class RenewingAioChannel(grpc.aio.Channel):
    """A channel for asyncio, with TLS. Arguments and errors are RenewingChannel's; made inside a running event loop."""

    def __init__(self, address: Address, options: Sequence[tuple[str, int]]) -> None:
        def make(credentials: grpc.ChannelCredentials) -> grpc.aio.Channel:
            return grpc.aio.secure_channel(address.target, credentials, options=options)

        self._closing: set[asyncio.Task[None]] = set()
        self._row = _Row(address, make, self._close_later)

    def _close_later(self, channel: grpc.aio.Channel) -> None:
        task = asyncio.ensure_future(channel.close(None))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def unary_unary(self, method: str, *serializers: Any, **named: Any) -> Any:
        """See grpc.aio.Channel."""
        return self._method("unary_unary", method, serializers, named)

    def unary_stream(self, method: str, *serializers: Any, **named: Any) -> Any:
        """See grpc.aio.Channel."""
        return self._method("unary_stream", method, serializers, named)

    def stream_unary(self, method: str, *serializers: Any, **named: Any) -> Any:
        """See grpc.aio.Channel."""
        return self._method("stream_unary", method, serializers, named)

    def stream_stream(self, method: str, *serializers: Any, **named: Any) -> Any:
        """See grpc.aio.Channel."""
        return self._method("stream_stream", method, serializers, named)

    def _method(self, kind: str, path: str, serializers: tuple[Any, ...], named: _Arguments) -> _Method:
        return _Method(self._row, kind, path, *serializers, *_serializers(named))

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """See grpc.aio.Channel; that of the channel that is newest now, as below."""
        state: grpc.ChannelConnectivity = self._row.newest().get_state(try_to_connect)
        return state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """See grpc.aio.Channel."""
        await self._row.newest().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """See grpc.aio.Channel."""
        await self._row.newest().channel_ready()

    async def close(self, grace: float | None = None) -> None:
        """See grpc.aio.Channel."""
        await asyncio.gather(*(channel.close(grace) for channel in self._row.close()), *self._closing)

    async def __aenter__(self) -> RenewingAioChannel:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()


def _serializers(named: _Arguments) -> tuple[Any, ...]:
    """What generated stubs give by name, in order. Their _registered_method is left out: it only saves a look-up."""
    return tuple(named[name] for name in ("request_serializer", "response_deserializer") if name in named)
