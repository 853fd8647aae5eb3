# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor certs`: an authority, and certificates that say what their holders may do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from splitvisor.access.identity import Identity, IdentityError, Role
from splitvisor.cli.control import USAGE, fail
from splitvisor.limits import CERTIFICATE_BYTES
from splitvisor.process.inputs import Pipes, read_input

if TYPE_CHECKING:
    from splitvisor.access.certs import Description

certs = typer.Typer(
    help="Make and show certificates for services and clients beyond this host (docs/security.md).", no_args_is_help=True
)
AuthorityArgument = Annotated[Path, typer.Argument(metavar="DIR", help="The authority's directory")]


@contextmanager
def _one_line(command: str) -> Iterator[None]:
    """End the program with one line when something cannot be made or read."""
    from splitvisor.access.certs import CertificateError  # cryptography is slow to load

    try:
        yield
    except (CertificateError, IdentityError) as error:
        fail(f"certs {command}", str(error), USAGE)
    except OSError as error:
        fail(f"certs {command}", f"{error.filename}: {error.strerror}", USAGE)


@certs.command()
def init(
    directory: AuthorityArgument,
    *,
    name: Annotated[str, typer.Option(metavar="TEXT", help="The authority's name, for people")] = "Splitvisor",
    days: Annotated[int | None, typer.Option(metavar="N", help="Days until it expires [3650]")] = None,
) -> None:
    """Make an authority: DIR/ca.pem and its key, DIR/ca-key.pem.

    The holder of the key can impersonate anyone, so keep it away from the services' hosts.
    """
    from splitvisor.access.certs import CA_DAYS, make_authority

    with _one_line("init"):
        make_authority(directory, name, days if days is not None else CA_DAYS)
    typer.echo(f"{directory}: a new authority; next: splitvisor certs issue {directory} --role ROLE --vm PATTERN --name NAME")


@certs.command()
def issue(
    authority: AuthorityArgument,
    *,
    role: Annotated[Role, typer.Option(metavar="ROLE", help=f"What the holder may do: {', '.join(Role)}", case_sensitive=False)],
    vm: Annotated[list[str], typer.Option(metavar="PATTERN", help="VMs that it covers, such as web-* or *; may be repeated")],
    name: Annotated[str, typer.Option(metavar="NAME", help="The holder's name, also the name of its directory")],
    host: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="Host of the service: a name or an IP address; may be repeated"),
    ] = None,
    days: Annotated[int | None, typer.Option(metavar="N", help="Days until it expires [365]")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Output directory [DIR/NAME]")] = None,
) -> None:
    """Make a certificate: cert.pem, key.pem and ca.pem in a directory for --tls. An existing one is replaced.

    Running services and clients load the new files automatically.
    """
    from splitvisor.access import certs as made

    directory = out or authority / name
    with _one_line("issue"):
        if role.serves and not host:
            raise made.CertificateError(f"role {role} is for servers, so its certificate needs a host name", "give --host HOST")
        identity = Identity(role, tuple(vm))
        days = days if days is not None else made.ISSUE_DAYS
        description = made.issue(authority, name, identity, hosts=host or (), days=days, directory=directory)
    typer.echo(f"{directory}: {description.identity}, until {description.not_after:%Y-%m-%d}")


@certs.command()
def show(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A certificate, or a directory with cert.pem or ca.pem")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
) -> None:
    """Print the contents of a certificate."""
    from splitvisor.access.certs import CA_CERTIFICATE, CERTIFICATE, describe, parse_certificate

    if path.is_dir():
        path = path / (CERTIFICATE if (path / CERTIFICATE).exists() else CA_CERTIFICATE)
    with _one_line("show"):
        description = describe(parse_certificate(read_input(Pipes().file(path), CERTIFICATE_BYTES), path))
    fields = _fields(description)
    if as_json:
        typer.echo(json.dumps({"path": str(path), **fields}, indent=2))
        return
    for key, value in fields.items():
        text = ", ".join(value) if isinstance(value, list) else value
        typer.echo(f"{key.replace('_', ' '):<12} {text if text not in ('', None) else '-'}")


def _fields(description: Description) -> dict[str, Any]:
    identity = description.identity
    role = "authority" if description.is_authority else None
    return {
        "name": description.name,
        "role": str(identity.role) if identity is not None else role,
        "vms": list(identity.vms) if identity is not None else [],
        "hosts": list(description.hosts),
        "serial": f"{description.serial:x}",
        "not_before": description.not_before.isoformat(),
        "not_after": description.not_after.isoformat(),
        "fingerprint": description.fingerprint,
    }
