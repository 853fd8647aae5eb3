# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutual TLS as users meet it: what is refused says why in one line, and new certificates are taken while services run."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc
from typer.testing import CliRunner

from splitvisor.access.identity import Role
from splitvisor.cli.app import make_app
from splitvisor.net.channels import explain, open_aio_channel, open_channel
from splitvisor.net.tls_files import TlsError
from splitvisor.rpc import machine_pb2, machine_pb2_grpc, vio_bus_pb2, vio_bus_pb2_grpc
from tests.certificates import Authority
from tests.tls_services import DEADLINE, ROOT, TlsService

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ca")


@pytest.fixture
def vio(authority: Authority, tmp_path: Path) -> Iterator[TlsService]:
    service = TlsService("vio", authority.issue(Role.BACKEND, into=tmp_path / "server"))
    yield service
    service.end()


def list_buses(channel: grpc.Channel) -> str:
    """Make a call for operators; return why it failed."""
    try:
        vio_bus_pb2_grpc.VioBusServiceStub(channel).ListBuses(vio_bus_pb2.ListBusesRequest(), timeout=DEADLINE)
    except grpc.RpcError as error:
        return explain(error)
    return ""


def refusal(address: str, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SPLITVISOR_TLS", str(certificate))
    with open_channel(address) as channel:
        return list_buses(channel)


def serial(address: str, certificate: Path) -> int:
    """The serial number of the certificate that a server shows to a new connection."""
    host, _, port = address.removeprefix("tls:").rpartition(":")
    context = ssl.create_default_context(cafile=certificate / "ca.pem")
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((host, int(port)), DEADLINE) as plain, context.wrap_socket(plain, server_hostname=host) as tls:
        shown = tls.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


def stored_serial(certificate: Path) -> int:
    return x509.load_pem_x509_certificate((certificate / "cert.pem").read_bytes()).serial_number


def test_a_peer_that_is_not_let_in_is_told_why_in_one_line(
    vio: TlsService, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = authority.issue(Role.OPERATOR)
    assert refusal(vio.address, good, monkeypatch) == ""
    foreign = Authority(tmp_path / "other").issue(Role.OPERATOR)
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for name, source in (("ca", good), ("cert", foreign), ("key", foreign)):
        (mixed / f"{name}.pem").write_bytes((source / f"{name}.pem").read_bytes())
    for certificate, reason in (
        (foreign, "its certificate is from another authority"),
        (authority.issue(Role.CONSOLE_READ), "ListBuses: role console-read may not; this is for operator"),
    ):
        told = refusal(vio.address, certificate, monkeypatch)
        assert reason in told
        assert "\n" not in told
    for certificate, reason in (
        (authority.issue_expired(Role.OPERATOR, "late", monkeypatch), "expired on 20"),
        (mixed, "not from the authority"),
        (tmp_path / "absent", "No such file"),
    ):
        with pytest.raises(TlsError, match=reason):
            refusal(vio.address, certificate, monkeypatch)
    plain = vio.address.removeprefix("tls:")
    monkeypatch.delenv("SPLITVISOR_TLS")
    with open_channel(plain) as channel:
        assert "it requires a valid certificate" in list_buses(channel)
    with pytest.raises(TlsError, match="give --tls DIR"):
        open_channel(vio.address)


def test_a_server_must_be_who_its_certificate_says(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    operator = authority.issue(Role.OPERATOR)
    elsewhere = TlsService("vio", authority.issue(Role.BACKEND, name="far", hosts=["vio.example"], into=tmp_path / "far"))
    try:
        assert "for another host; issue one with --host" in refusal(elsewhere.address, operator, monkeypatch)
    finally:
        elsewhere.end()
    plain = TlsService("vio", operator, listen="127.0.0.1:0")
    try:
        assert "it does not speak TLS" in refusal(f"tls:{plain.address}", operator, monkeypatch)
    finally:
        plain.end()


@pytest.mark.parametrize(
    ("role", "reason"),
    [(None, "plaintext is for unix sockets and loopback only"), (Role.OPERATOR, "role operator is for clients")],
)
def test_a_service_does_not_start_without_a_certificate_of_a_service(
    authority: Authority, role: Role | None, reason: str
) -> None:
    arguments = ("--tls", str(authority.issue(role))) if role is not None else ()
    done = subprocess.run(
        [sys.executable, "-m", "splitvisor.service.main", "vio", "--listen", "0.0.0.0:0", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_commands_take_a_certificate_and_say_one_line(vio: TlsService, authority: Authority) -> None:
    command = [sys.executable, "-m", "splitvisor", "vm", "devices", "nobody", "--vio", vio.address, "--tls"]
    for certificate, reason in (
        (authority.issue(Role.OPERATOR), "no VM 'nobody'"),
        (authority.issue(Role.OPERATOR, "web-*", name="web"), "for VMs web-*, not for VM 'nobody'"),
        (Authority(authority.directory / "other").issue(Role.OPERATOR), "its certificate is from another authority"),
    ):
        done = subprocess.run(
            [*command, str(certificate)], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        assert done.returncode == 1
        assert reason in done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr


def test_a_command_s_flags_go_before_the_environment(
    vio: TlsService, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = authority.issue(Role.OPERATOR)
    monkeypatch.setenv("SPLITVISOR_TLS_CERT", "/nowhere")
    for name in ("SPLITVISOR_TLS", "SPLITVISOR_TLS_KEY", "SPLITVISOR_TLS_CA"):
        monkeypatch.setenv(name, "")
    command = ["vm", "devices", "nobody", "--vio", vio.address]
    assert "no VM 'nobody'" in CliRunner().invoke(make_app(), [*command, "--tls", str(good)]).stderr
    files = [f"--tls-{name}={good / file}" for name, file in (("cert", "cert.pem"), ("key", "key.pem"), ("ca", "ca.pem"))]
    assert "no VM 'nobody'" in CliRunner().invoke(make_app(), [*command, *files]).stderr


def test_a_new_certificate_is_shown_to_new_connections_and_old_streams_live_on(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client = tmp_path / "server", authority.issue(Role.OPERATOR)
    monkeypatch.setenv("SPLITVISOR_TLS", str(client))
    service = TlsService("vio", authority.issue(Role.BACKEND, into=server))
    try:
        with open_channel(service.address) as channel:
            statuses = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=DEADLINE)
            assert next(statuses).status == SERVING
            assert serial(service.address, client) == stored_serial(server)
            authority.issue(Role.BACKEND, into=server)
            assert serial(service.address, client) == stored_serial(server)
            good = stored_serial(server)
            (server / "key.pem").write_bytes((client / "key.pem").read_bytes())
            assert serial(service.address, client) == good
            service.wait_logged("not the certificate's")
            authority.issue(Role.BACKEND, into=server)
            assert serial(service.address, client) == stored_serial(server)
            service.stop()
            assert next(statuses).status == NOT_SERVING
    finally:
        service.end()


def test_a_client_takes_new_files_for_its_next_call_and_its_streams_live_on(
    vio: TlsService, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = authority.issue(Role.CONSOLE_READ, into=tmp_path / "client")
    monkeypatch.setenv("SPLITVISOR_TLS", str(client))
    with open_channel(vio.address) as channel:
        statuses = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=DEADLINE)
        assert next(statuses).status == SERVING
        assert "console-read may not" in list_buses(channel)
        authority.issue(Role.OPERATOR, into=client)
        assert list_buses(channel) == ""
        (client / "cert.pem").write_text("broken")
        assert list_buses(channel) == ""
        authority.issue(Role.CONSOLE_WRITE, into=client)
        assert "console-write may not" in list_buses(channel)
        vio.stop()
        assert next(statuses).status == NOT_SERVING


def test_so_does_one_for_asyncio(vio: TlsService, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = authority.issue(Role.OPERATOR, into=tmp_path / "client")
    monkeypatch.setenv("SPLITVISOR_TLS", str(client))

    async def scenario() -> None:
        async with open_aio_channel(vio.address) as channel:
            buses = vio_bus_pb2_grpc.VioBusServiceStub(channel)
            statuses = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=DEADLINE)
            assert (await statuses.read()).status == SERVING
            assert list((await buses.ListBuses(vio_bus_pb2.ListBusesRequest())).buses) == []
            authority.issue(Role.CONSOLE_READ, into=client)
            with pytest.raises(grpc.aio.AioRpcError, match="console-read may not"):
                await buses.ListBuses(vio_bus_pb2.ListBusesRequest())
            vio.stop()
            assert (await statuses.read()).status == NOT_SERVING

    asyncio.run(scenario())


def test_the_health_address_serves_health_only(authority: Authority, short_path: Path) -> None:
    service = TlsService("cpu", authority.issue(Role.CPU), "--health", "0.0.0.0:0", "--ram-dir", str(short_path))
    try:
        port = service.addresses[1].rpartition(":")[2]
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE)
            assert check.status == SERVING
            with pytest.raises(grpc.RpcError) as refused:
                machine_pb2_grpc.MachineServiceStub(channel).ListMachines(machine_pb2.ListMachinesRequest(), timeout=DEADLINE)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    finally:
        service.end()


def test_what_services_make_is_their_user_s_only_whatever_the_umask(authority: Authority, short_path: Path) -> None:
    socket_path, store = short_path / "hcall.sock", short_path / "trees.sqlite"
    service = TlsService("hcall", authority.issue(Role.BACKEND), "--store", str(store), listen=f"unix:{socket_path}")
    try:
        assert stat.S_ISSOCK(socket_path.stat().st_mode)
        for path in (socket_path, *short_path.glob("trees.sqlite*")):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    finally:
        service.end()


def test_services_that_are_not_told_where_listen_in_a_private_directory(short_path: Path) -> None:
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(short_path)}
    directory = short_path / f"splitvisor-services-{os.getuid()}"
    command = [sys.executable, "-m", "splitvisor.service.main", "vio"]
    with subprocess.Popen([*command, "--ready-fd", "1"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, umask=0) as process:
        assert process.stdout is not None
        assert f"unix:{directory}/vio.sock".encode() in process.stdout.readline()
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE((directory / "vio.sock").stat().st_mode) == 0o600
        process.terminate()
        assert process.wait(DEADLINE) == 0
    directory.chmod(0o755)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 2
    assert "only this user can enter" in done.stderr
