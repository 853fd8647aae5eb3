# SPDX-License-Identifier: GPL-2.0-or-later
"""gateway_service: HTTP for browsers beside the gRPC server that every service has, here with health and reflection only."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
from aiohttp import WSCloseCode, web

from gateway_service.authorization import StartToken, TokenError, TokenFile
from gateway_service.pages import pages
from gateway_service.routes import ROUTES
from gateway_service.sessions import Sessions
from gateway_service.site import Certificate, HttpAddress, check_reach, make_site, parse_address
from gateway_service.vms import Channels, find_running, parse_connect
from gateway_service.web_app import STATIC, Gateway, application
from splitvisor.net.addresses import AddressError
from splitvisor.net.sockets import make_way
from splitvisor.process.logging import get_logger
from splitvisor.process.streams import OutputError, drop_output
from splitvisor.service.serve import SettingError

SERVICES: tuple[str, ...] = ()

DEFAULT_HTTP = "127.0.0.1:8642"
CERTIFICATE_SECONDS = 10.0
"""How often it is looked up whether the certificate's files have changed."""
END_SECONDS = 1.0
"""How long browsers may take to take leave."""

_log = get_logger(__name__)


@dataclass(frozen=True)
class Options:
    """What `splitvisor service gateway` may set."""

    listen_http: str = field(
        default=DEFAULT_HTTP,
        metadata={
            "metavar": "ADDRESS",
            "help": f"address for browsers: IP:PORT, port 0 for any free port, or unix:/path (default: {DEFAULT_HTTP})",
        },
    )
    connect: tuple[str, ...] = field(
        default=(),
        metadata={
            "metavar": "VM",
            "help": "a VM as vm=NAME,cpu=ADDRESS,hcall=ADDRESS,vio=ADDRESS; may be repeated (default: this user's)",
        },
    )
    tokens: Path | None = field(
        default=None,
        metadata={"metavar": "FILE", "help": "TOML file of tokens (default: an operator's, made at start and shown in the URL)"},
    )
    url: str = field(
        default="",
        metadata={"metavar": "URL", "help": "URL that browsers use, if a proxy or a published port forwards to --listen-http"},
    )
    http_tls_cert: Path | None = field(
        default=None, metadata={"metavar": "FILE", "help": "PEM certificate for browsers, reloaded when changed"}
    )
    http_tls_key: Path | None = field(default=None, metadata={"metavar": "FILE", "help": "its key"})


async def start(server: grpc.aio.Server, options: Options) -> Callable[[], Awaitable[None]]:
    """Listen for browsers, and print the URL. Returns what stops it. Raises SettingError."""
    if not (STATIC / "vendor" / "xterm.mjs").exists():
        raise SettingError("xterm.js has not been fetched", "run ./dev web, which needs npm")
    address = parse_address(options.listen_http)
    certificate = _certificate(options)
    check_reach(address, options.url, tls=certificate is not None)
    vms = parse_connect(options.connect)
    channels = Channels((lambda: vms) if vms else find_running)
    channels.check(vms)
    try:
        tokens = TokenFile(options.tokens) if options.tokens is not None else StartToken()
    except TokenError as error:
        raise SettingError(f"--tokens {error}") from error

    gateway = Gateway(channels, Sessions(tokens))
    runner = web.AppRunner(application(gateway, ROUTES, pages(gateway)), access_log=None, shutdown_timeout=END_SECONDS)
    await runner.setup()
    port = await _listen(runner, address, certificate)
    gateway.site = make_site(address, port, options.url, certificate.names if certificate is not None else frozenset())
    suffix = f"/?token={tokens.token}" if isinstance(tokens, StartToken) else "/"
    # stdout: the token is for whoever started this, not for the log.
    try:
        print(f"{gateway.site.url}{suffix}", file=sys.stdout, flush=True)
    except OutputError as error:  # The page is served all the same.
        drop_output()
        _log.warning("the address cannot be printed", reason=str(error))
    refresh = asyncio.create_task(_refresh(certificate)) if certificate is not None else None

    async def stop() -> None:
        if refresh is not None:
            refresh.cancel()
            await asyncio.gather(refresh, return_exceptions=True)
        for socket in list(gateway.sockets):
            with suppress(ConnectionError):
                await socket.close(code=WSCloseCode.GOING_AWAY, message=b"the gateway shuts down")
        await runner.cleanup()
        await channels.close()

    return stop


def _certificate(options: Options) -> Certificate | None:
    if options.http_tls_cert is None and options.http_tls_key is None:
        return None
    if options.http_tls_cert is None or options.http_tls_key is None:
        raise SettingError("--http-tls-cert and --http-tls-key belong together", "give both")
    return Certificate(options.http_tls_cert, options.http_tls_key)


async def _listen(runner: web.AppRunner, address: HttpAddress, certificate: Certificate | None) -> int:
    """Listen, and return the TCP port. Raises SettingError."""
    context = certificate.context if certificate is not None else None
    site: web.BaseSite
    if address.path:
        site = web.UnixSite(runner, address.path, ssl_context=context)
    else:
        site = web.TCPSite(runner, address.host, address.port, ssl_context=context, reuse_address=True)
    if address.path:
        try:
            make_way(address.path)
        except AddressError as error:
            raise SettingError(f"--listen-http {error.problem.what}", error.problem.remedy) from None
    mask = os.umask(0o177)  # Who may connect to a unix socket is who may write to it.
    try:
        await site.start()
    except OSError as error:
        where = address.path or f"{address.host}:{address.port}"
        raise SettingError(f"--listen-http {where}: {error.strerror or error}", "is another gateway running there?") from error
    finally:
        os.umask(mask)
    return 0 if address.path else int(runner.addresses[0][1])


async def _refresh(certificate: Certificate) -> None:
    while True:
        await asyncio.sleep(CERTIFICATE_SECONDS)
        try:
            certificate.refresh()
        except OSError as error:
            _log.error("certificate not read again", reason=str(error))
