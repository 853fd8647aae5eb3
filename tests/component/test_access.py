# SPDX-License-Identifier: GPL-2.0-or-later
"""Every rpc of every service, by every role, for a VM that the certificate is for and for one that it is not, and by peers
without a certificate: real services, real certificates.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from splitvisor.access.authorization import OTHER_RULES, Rule, rules
from splitvisor.access.identity import Role
from splitvisor.service.names import SERVICE_NAMES, ServiceName
from tests.certificates import Authority
from tests.component.test_service import ROOT, own_options
from tests.rpc_methods import message, methods, services, with_value

ANSWER_SECONDS = 20.0
ADMITTED_SECONDS = 1.0
"""A call that has no answer by then was let in: a refusal comes at once."""
REFUSED = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)
OURS, THEIRS = "mine-1", "other"
PATTERN = "mine-*"


@dataclass(frozen=True)
class Call:
    """An rpc with a request, and who is expected to be let in."""

    path: str
    streams: tuple[bool, bool]
    request: Any
    rule: Rule
    vm: str
    roles: frozenset[Role]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("tls") / "ca")
    authority.issue(Role.BACKEND, name="server")
    for role in Role:
        authority.issue(role, PATTERN, name=f"some-{role}")
        authority.issue(role, "*", name=f"all-{role}")
    return authority


def credentials(directory: Path) -> grpc.ChannelCredentials:
    ca, key, certificate = ((directory / name).read_bytes() for name in ("ca.pem", "key.pem", "cert.pem"))
    return grpc.ssl_channel_credentials(ca, key, certificate)


@pytest.fixture(params=SERVICE_NAMES, ids=lambda name: name.package)
def served(request: pytest.FixtureRequest, authority: Authority, short_path: Path) -> Iterator[tuple[ServiceName, str]]:
    """A service that listens with TLS, and its address."""
    name: ServiceName = request.param
    ready_read, ready_write = os.pipe()
    command = [
        sys.executable, "-m", "splitvisor.service.main", name.command, "--listen", "tls:127.0.0.1:0", "--tls",
        str(authority.directory / "server"), "--ready-fd", str(ready_write), *own_options(name, short_path),
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, pass_fds=(ready_write,), stderr=subprocess.DEVNULL)
    os.close(ready_write)
    with os.fdopen(ready_read, "rb") as ready:
        [address] = json.loads(ready.readline())["addresses"]
    yield name, address.removeprefix("tls:")
    process.terminate()
    assert process.wait(ANSWER_SECONDS) == 0


FLAG_VALUES: Mapping[Sequence[str], Any] = {("open", "writer"): True, ("options", "file"): "/nowhere/vm.snapshot"}
"""For each field that fewer may set."""


def calls(name: ServiceName) -> Iterator[Call]:
    """Every rpc that a service serves, for our VM and for another, and with each flag that fewer may set."""
    for service in (service for service in services() if service.full_name in name.load().SERVICES):
        for (path, method), vm in itertools.product(methods(service), (OURS, THEIRS)):
            rule = rules([service.full_name])[path]
            streams = (method.client_streaming, method.server_streaming)
            for flag in (None, *(rule.restrictions or {})):
                request = message(method.input_type)
                if rule.field:
                    with_value(request, rule.field, vm)
                if flag is not None:
                    with_value(request, flag, FLAG_VALUES[flag])
                restricted = (rule.restrictions or {}).get(flag or (), rule.roles)
                yield Call(path, streams, request, rule, vm, rule.roles & restricted)
    check = health_pb2.HealthCheckRequest()
    listing = reflection_pb2.ServerReflectionRequest(list_services="")
    for path, streams, request in (
        (f"/{health.SERVICE_NAME}/Check", (False, False), check),
        (f"/{health.SERVICE_NAME}/Watch", (False, True), check),
        (f"/{reflection.SERVICE_NAME}/ServerReflectionInfo", (True, True), listing),
    ):
        rule = OTHER_RULES[path.split("/")[1]]
        yield Call(path, streams, request, rule, "", rule.roles)


async def outcome(channel: grpc.aio.Channel, call: Call) -> grpc.StatusCode | None:
    """Make a call; return the status that it ended with, None when it was let in and went on."""
    kind = {(False, False): "unary_unary", (False, True): "unary_stream", (True, True): "stream_stream"}[call.streams]
    method = getattr(channel, kind)(call.path, request_serializer=lambda request: request.SerializeToString())

    async def requests() -> Any:
        yield call.request
        await asyncio.sleep(ANSWER_SECONDS)

    made = method(requests() if call.streams[0] else call.request, timeout=ANSWER_SECONDS)
    try:
        async with asyncio.timeout(ADMITTED_SECONDS):
            await (made.read() if call.streams[1] else made)
            return None
    except TimeoutError:
        return None
    except grpc.aio.AioRpcError as error:
        return error.code()
    finally:
        made.cancel()


def test_each_rpc_lets_its_roles_in_for_their_vms_and_nobody_else(served: tuple[ServiceName, str], authority: Authority) -> None:
    name, address = served
    made = list(calls(name))
    assert len(made) > 3

    async def by(role: Role, scope: str) -> list[str]:
        """What came out otherwise than declared."""
        async with grpc.aio.secure_channel(address, credentials(authority.directory / f"{scope}-{role}")) as channel:
            codes = await asyncio.gather(*(outcome(channel, call) for call in made))
        wrong = []
        for call, code in zip(made, codes, strict=True):
            expected = role in call.roles and (scope == "all" or not call.rule.field or call.vm == OURS)
            if (code not in REFUSED) != expected:
                wrong.append(f"{call.path} by {role} for {scope} VMs, about {call.vm!r}: {code}")
        return wrong

    async def all_roles() -> list[str]:
        wrong = await asyncio.gather(*(by(role, scope) for role in Role for scope in ("some", "all")))
        return list(itertools.chain(*wrong))

    assert asyncio.run(all_roles()) == []


def test_no_rpc_lets_a_peer_without_a_certificate_in(served: tuple[ServiceName, str], authority: Authority) -> None:
    name, address = served
    ca = (authority.directory / "ca.pem").read_bytes()

    async def by_nobody() -> list[str]:
        wrong = []
        for channel in (grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(ca)), grpc.aio.insecure_channel(address)):
            async with channel:
                for call in calls(name):
                    code = await outcome(channel, call)
                    if code is not grpc.StatusCode.UNAVAILABLE:
                        wrong.append(f"{call.path}: {code}")
        return wrong

    assert asyncio.run(by_nobody()) == []
