# SPDX-License-Identifier: GPL-2.0-or-later
"""The other ways to the gateway: HTTPS with a certificate that changes, and a unix socket."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import socket
import ssl
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway_service.site import Certificate
from tests.gateway_process import GatewayProcess, needs_xterm

pytestmark = needs_xterm

DEADLINE = 60.0
VM = "vm=x,cpu=unix:/tmp/no-1,hcall=unix:/tmp/no-2,vio=unix:/tmp/no-3"


def write_certificate(certificate: Path, key: Path) -> bytes:
    """Make a certificate for 127.0.0.1 and vms.test that signs itself; return its DER form."""
    own_key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("vms.test"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(own_key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1)).add_extension(names, critical=False).sign(own_key, hashes.SHA256())
    )  # fmt: skip
    plain = serialization.NoEncryption()
    key.write_bytes(own_key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return made.public_bytes(serialization.Encoding.DER)


def test_https_has_the_names_of_its_certificate_and_secure_cookies(short_path: Path) -> None:
    certificate, key = short_path / "cert.pem", short_path / "key.pem"
    write_certificate(certificate, key)
    gateway = GatewayProcess(short_path, "--connect", VM, "--http-tls-cert", str(certificate), "--http-tls-key", str(key))
    assert gateway.origin == f"https://127.0.0.1:{gateway.port}"

    async def run() -> None:
        context = ssl.create_default_context(cafile=str(certificate))
        session = aiohttp.ClientSession(gateway.origin, connector=aiohttp.TCPConnector(ssl=context))
        async with asyncio.timeout(DEADLINE), session:
            async with session.get(f"/?token={gateway.token}", allow_redirects=False) as answer:
                [cookie] = answer.cookies.values()
                assert cookie["secure"]
            headers = {"Authorization": f"Bearer {gateway.token}"}
            for host, status in ((f"vms.test:{gateway.port}", 200), (f"other.test:{gateway.port}", 403)):
                async with session.get("/api/vms", headers={**headers, "Host": host}) as answer:
                    assert answer.status == status
            async with session.ws_connect("/api/vms/x/status", headers=headers) as socket:
                assert (await socket.receive_json())["state"] == "unreachable"
        # A WebSocket over TLS is still being closed; it is when its peer has ended.
        assert await asyncio.to_thread(gateway.end) == 0

    try:
        asyncio.run(run())
    finally:
        gateway.end()


def test_a_certificate_that_changes_is_for_connections_to_come(short_path: Path) -> None:
    files = short_path / "cert.pem", short_path / "key.pem"
    first = write_certificate(*files)
    certificate = Certificate(*files)

    def served() -> bytes:
        with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

            def accept() -> None:
                connection, _ = listener.accept()
                certificate.context.wrap_socket(connection, server_side=True).close()

            accepted = pool.submit(accept)
            shown = ssl.get_server_certificate(listener.getsockname(), timeout=DEADLINE)
            accepted.result(DEADLINE)
            return ssl.PEM_cert_to_DER_cert(shown)

    assert certificate.names == {"vms.test", "127.0.0.1"}
    assert served() == first
    second = write_certificate(*files)
    assert served() == first
    certificate.refresh()
    assert served() == second


def test_a_unix_socket_is_its_users_only(short_path: Path) -> None:
    path = short_path / "web.sock"
    gateway = GatewayProcess(short_path, "--connect", VM, "--listen-http", f"unix:{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    async def run() -> None:
        headers = {"Authorization": f"Bearer {gateway.token}"}
        session = aiohttp.ClientSession("http://localhost", connector=aiohttp.UnixConnector(str(path)), headers=headers)
        async with asyncio.timeout(DEADLINE), session, session.get("/api/vms") as answer:
            assert answer.status == 200

    try:
        asyncio.run(run())
    finally:
        assert gateway.end() == 0
