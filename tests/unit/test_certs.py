# SPDX-License-Identifier: GPL-2.0-or-later
"""Identities, the authority, the certificates that it issues, and `splitvisor certs`."""

from __future__ import annotations

import codecs
import datetime
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from typer.testing import CliRunner, Result

from splitvisor.access import certs
from splitvisor.access.certs import CertificateError
from splitvisor.access.identity import Identity, IdentityError, Role, parse_identity
from splitvisor.cli.app import make_app
from splitvisor.net.tls_files import TlsError, tls_files
from tests.certificates import Authority


def splitvisor(*arguments: object) -> Result:
    return CliRunner().invoke(make_app(), list(map(str, arguments)))


def usable(directory: Path) -> Identity:
    certificate, key, ca = ((directory / name).read_bytes() for name in ("cert.pem", "key.pem", "ca.pem"))
    return certs.check_usable(certificate, key, ca, directory)


@pytest.mark.parametrize("role", Role)
def test_an_identity_survives_its_certificate(role: Role, tmp_path: Path) -> None:
    identity = Identity(role, ("web-*", "db", "vm-?"))
    authority = Authority(tmp_path / "ca")
    assert usable(authority.issue(role, *identity.vms)) == identity
    assert parse_identity(identity.uri()) == identity


@pytest.mark.parametrize(
    ("patterns", "vm", "covered"),
    [
        (("*",), "web-1", True),
        (("*",), "", True),
        (("web-*",), "web-1", True),
        (("web-*",), "web-", True),
        (("web-*",), "web", False),
        (("web-?",), "web-12", False),
        (("db", "web-1"), "web-1", True),
        (("db",), "", False),
        (("db",), "db2", False),
        (("db",), "*", False),
        (("**",), "", False),
    ],
)
def test_patterns_cover_vms_and_only_a_star_covers_all_at_once(patterns: tuple[str, ...], vm: str, covered: bool) -> None:
    assert Identity(Role.OPERATOR, patterns).covers(vm) is covered


@pytest.mark.parametrize("patterns", [(), ("",), ("Web",), ("a;vm=*",), ("[ab]",), ("a/b",), ("x" * 64,), ("a",) * 65])
def test_other_patterns_are_refused(patterns: tuple[str, ...]) -> None:
    with pytest.raises(IdentityError):
        Identity(Role.OPERATOR, patterns)


@pytest.mark.parametrize(
    "uri",
    [
        "splitvisor:", "splitvisor:role=root;vm=*", "splitvisor:role=cpu", "splitvisor:role=cpu;*", "splitvisor:cpu;vm=*",
        "splitvisor:role=cpu;vm=", "splitvisor:role=cpu;vm=*;role=operator", "splitvisor:vm=*;role=cpu",
        "splitvisor:role=CPU;vm=*",
    ],
)  # fmt: skip
def test_only_what_an_identity_makes_is_one(uri: str) -> None:
    with pytest.raises(IdentityError):
        parse_identity(uri)


def test_keys_and_directories_are_their_owners_only(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    issued = authority.issue(Role.CPU)
    for directory in (authority.directory, issued):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        for path in directory.glob("*.pem"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(path.name for path in issued.iterdir()) == ["ca.pem", "cert.pem", "key.pem"]
    issued.chmod(0o755)
    with pytest.raises(CertificateError, match="chmod 700"):
        authority.issue(Role.CPU)


@pytest.mark.parametrize("role", Role)
def test_only_services_get_certificates_for_servers(role: Role, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    certificate = x509.load_pem_x509_certificate((authority.issue(role) / "cert.pem").read_bytes())
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert (ExtendedKeyUsageOID.SERVER_AUTH in purposes) is (role in {Role.CPU, Role.BACKEND})
    assert ExtendedKeyUsageOID.CLIENT_AUTH in purposes
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    if not role.serves:
        with pytest.raises(CertificateError, match="is for clients"):
            authority.issue(role, hosts=["vio.example"])


def test_what_cannot_be_used_is_one_line_that_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, other = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    good, expired = authority.issue(Role.CPU), authority.issue_expired(Role.CPU, "late", monkeypatch)
    with pytest.raises(CertificateError, match="expired on 20"):
        usable(expired)
    foreign = other.issue(Role.CPU)
    mixed = tmp_path / "mixed"
    mixed.mkdir()

    def put(**sources: Path) -> None:
        for name, directory in sources.items():
            (mixed / f"{name}.pem").write_bytes((directory / f"{name}.pem").read_bytes())

    put(cert=foreign, key=foreign, ca=good)
    with pytest.raises(CertificateError, match="not from the authority"):
        usable(mixed)
    put(cert=good, key=foreign, ca=good)
    with pytest.raises(CertificateError, match="not the certificate's"):
        usable(mixed)
    put(cert=good, key=good, ca=good)
    assert usable(mixed).role is Role.CPU
    (mixed / "ca.pem").write_bytes((other.directory / "ca.pem").read_bytes() + (good / "ca.pem").read_bytes())
    assert usable(mixed).role is Role.CPU
    (mixed / "cert.pem").write_text("no certificate")
    with pytest.raises(CertificateError, match="PEM"):
        usable(mixed)
    put(cert=good)
    (mixed / "key.pem").write_text("no key")
    with pytest.raises(CertificateError, match="PEM"):
        usable(mixed)
    with pytest.raises(CertificateError, match="has an authority already"):
        certs.make_authority(authority.directory, "again")


def test_the_environment_names_a_directory_or_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path / "ca")
    directory = authority.issue(Role.OPERATOR)
    with pytest.raises(TlsError, match="give --tls DIR"):
        tls_files("192.0.2.1:7")
    monkeypatch.setenv("SPLITVISOR_TLS_CERT", str(directory / "cert.pem"))
    with pytest.raises(TlsError, match="give --tls-key and --tls-ca too"):
        tls_files("192.0.2.1:7")
    monkeypatch.setenv("SPLITVISOR_TLS", str(tmp_path / "absent"))
    with pytest.raises(TlsError, match=r"absent/key.pem: No such file"):
        tls_files("192.0.2.1:7").load()
    monkeypatch.setenv("SPLITVISOR_TLS", str(directory))
    monkeypatch.delenv("SPLITVISOR_TLS_CERT")
    assert tls_files("192.0.2.1:7").load().identity == Identity(Role.OPERATOR, ("*",))


@pytest.mark.parametrize("name", ["cert.pem", "key.pem", "ca.pem"])
def test_a_file_may_begin_with_a_byte_order_mark(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = Authority(tmp_path / "ca").issue(Role.OPERATOR)
    monkeypatch.setenv("SPLITVISOR_TLS", str(directory))
    plain = tls_files("192.0.2.1:7").load()
    (directory / name).write_bytes(codecs.BOM_UTF8 + (directory / name).read_bytes())
    assert tls_files("192.0.2.1:7").load() == plain


def test_the_command_makes_shows_and_refuses_in_one_line(tmp_path: Path) -> None:
    authority = tmp_path / "ca"
    assert splitvisor("certs", "init", authority).exit_code == 0
    issue = ("certs", "issue", authority, "--name", "vio")
    done = splitvisor(
        *issue, "--role", "backend", "--vm", "web-*", "--vm", "db", "--host", "vio.example", "--host", "192.0.2.7", "--days", "30"
    )
    assert done.exit_code == 0, done.stderr
    shown = json.loads(splitvisor("certs", "show", authority / "vio", "--json").stdout)
    assert shown["role"] == "backend"
    assert shown["vms"] == ["web-*", "db"]
    assert shown["hosts"] == ["vio.example", "192.0.2.7"]
    assert shown["path"].endswith("vio/cert.pem")
    assert "role         backend" in splitvisor("certs", "show", authority / "vio").stdout
    for arguments, reason in (
        (("certs", "init", authority), "already"),
        ((*issue, "--role", "cpu", "--vm", "*"), "give --host HOST"),
        ((*issue, "--role", "operator", "--vm", "A"), "give 1 to 63 characters"),
        ((*issue, "--role", "operator", "--vm", "*", "--days", "0"), "days"),
        ((*issue, "--role", "backend", "--vm", "*", "--host", "a b"), "host name"),
        (("certs", "issue", tmp_path / "no", "--role", "cpu", "--vm", "*", "--name", "x", "--host", "x"), "certs init"),
        (("certs", "show", tmp_path / "no"), "No such file"),
    ):
        done = splitvisor(*arguments)
        assert done.exit_code == 2
        assert reason in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_certificates_of_other_tools_do_with_rsa_and_an_intermediate_authority(tmp_path: Path) -> None:
    def make(name: str, signer: x509.Certificate | None, key: Any, signing: Any, ca: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        identity = x509.UniformResourceIdentifier("splitvisor:role=operator;vm=web-*")
        return (
            x509.CertificateBuilder(signer.subject if signer is not None else subject, subject, key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([identity]), critical=False)
            .sign(signing, hashes.SHA256())
        )

    root_key, middle_key, key = (rsa.generate_private_key(65537, 2048) for _ in range(3))
    root = make("root", None, root_key, root_key, True)
    middle = make("middle", root, middle_key, root_key, True)
    leaf = make("leaf", middle, key, middle_key, False)
    pem = serialization.Encoding.PEM
    key_pem = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    chain = leaf.public_bytes(pem) + middle.public_bytes(pem)
    assert certs.check_usable(chain, key_pem, root.public_bytes(pem), "here") == Identity(Role.OPERATOR, ("web-*",))
    with pytest.raises(CertificateError, match="not from the authority"):
        certs.check_usable(leaf.public_bytes(pem), key_pem, root.public_bytes(pem), "here")
