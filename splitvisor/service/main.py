# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor service NAME`, also as `python -m splitvisor.service.main NAME`: the fast way that the launcher takes.

What a service may set is in its Options; each field becomes a flag. Nothing of the command line's libraries is imported here:
four services start at once, and the guest waits for the slowest.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import gc
import os
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from splitvisor.process.signals import end_quietly

if __name__ == "__main__":
    end_quietly()  # Before gRPC and its kin are loaded.

try:
    import uvloop
except ModuleNotFoundError:
    uvloop = None  # type: ignore[assignment]  # a base install, which serves back ends, has none

from splitvisor.errors.similar import did_you_mean
from splitvisor.net.addresses import AddressError
from splitvisor.net.tls_flags import add_tls_flags, use_tls_flags
from splitvisor.process.extras import MissingExtraError
from splitvisor.process.logging import LogLevel, configure, get_logger
from splitvisor.process.open_files import TooFewFilesError, require_open_files
from splitvisor.process.signals import Kept
from splitvisor.process.streams import standard_streams
from splitvisor.service.arguments import StrictParser, choice
from splitvisor.service.interface import Servable
from splitvisor.service.names import ALL_SERVICE_NAMES
from splitvisor.service.serve import Listening, SettingError, serve

EXIT_USAGE = 2
EXIT_FAILED = 4


def make_parser(name: Servable, options: type[Any]) -> argparse.ArgumentParser:
    """Return what reads a service's flags: those of every service, and one for each field of its options."""
    parser = StrictParser(
        prog=name.program,
        description=f"Run {name.package}: {name.summary}.",
        epilog="SIGTERM, SIGINT or SIGHUP stops it; calls in progress get 3 seconds.",
    )
    parser.add_argument(
        "--listen",
        metavar="ADDRESS",
        action="append",
        help="unix:/path, a loopback host:port, or with TLS any host:port or tls:host:port; may be repeated "
        f"(default: {name.command}.sock in splitvisor-services-UID, a private directory in $XDG_RUNTIME_DIR or /tmp)",
    )
    add_tls_flags(parser)
    parser.add_argument(
        "--log-level",
        type=choice("a log level", list(LogLevel)),
        default=LogLevel.INFO,
        metavar="LEVEL",
        help="debug, info, warning or error (default: info)",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the versions of Splitvisor, Python and Unicorn")
    parser.add_argument("--no-health", action="store_true", help="do not serve grpc.health.v1.Health")
    parser.add_argument("--no-reflection", action="store_true", help="do not serve gRPC reflection")
    parser.add_argument("--health", metavar="ADDRESS", help="also listen there, for health checks only, in plaintext")
    parser.add_argument(
        "--metrics",
        metavar="HOST:PORT",
        help="serve Prometheus metrics there over HTTP, without access control; PORT alone: on loopback",
    )
    parser.add_argument(
        "--otel",
        metavar="URL",
        help="send OpenTelemetry spans to this OTLP collector, such as http://127.0.0.1:4317 "
        "(default: OTEL_EXPORTER_OTLP_ENDPOINT of the environment)",
    )
    parser.add_argument("--ready-fd", type=int, metavar="N", help="write a line of JSON to this descriptor once listening")
    parser.add_argument("--parent-fd", type=int, metavar="N", help="stop when this pipe is closed")
    own = parser.add_argument_group(f"options of {name.package}")
    for option in _fields(options):
        own.add_argument(
            option.flag,
            dest=option.name,
            type=option.convert,
            default=option.default,
            required=option.required,
            metavar=option.metavar,
            help=option.help,
            action=_Append if option.repeated else "store",
        )
    return parser


@dataclasses.dataclass(frozen=True)
class _Option:
    """A field of Options as a flag."""

    name: str
    convert: Any
    default: Any
    required: bool
    help: str
    repeated: bool
    metavar: str

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


class _Version(argparse.Action):
    """Prints versions and ends the program."""

    def __call__(self, parser: argparse.ArgumentParser, *_given: Any) -> None:
        from splitvisor.process.versions import versions  # rarely wanted

        print(versions())
        parser.exit()


class _Append(argparse.Action):
    """Collects the values of a flag that may be repeated into a tuple."""

    def __call__(self, _parser: Any, namespace: argparse.Namespace, values: Any, _flag: str | None = None) -> None:
        setattr(namespace, self.dest, (*getattr(namespace, self.dest), values))


_CONVERSIONS: dict[Any, Any] = {str: str, int: int, float: float, Path: Path}


def _fields(options: type[Any]) -> list[_Option]:
    hints = typing.get_type_hints(options)
    found = []
    for item in dataclasses.fields(options):
        hint = hints[item.name]
        repeated = typing.get_origin(hint) is tuple
        kinds = [kind for kind in typing.get_args(hint) or (hint,) if kind not in (type(None), Ellipsis)]
        if len(kinds) != 1 or kinds[0] not in _CONVERSIONS:
            continue  # Set by programs only.
        default = item.default
        if item.default_factory is not dataclasses.MISSING:
            default = item.default_factory()
        required = default is dataclasses.MISSING
        found.append(
            _Option(
                item.name,
                _CONVERSIONS[kinds[0]],
                None if required else default,
                required,
                item.metadata.get("help", ""),
                repeated,
                item.metadata.get("metavar", item.name.rpartition("_")[2].upper()),
            )
        )
    return found


def _default_address(name: Servable) -> str:
    """Return the address of a service without --listen. Raises AddressError."""
    from splitvisor.service.runtime_directory import make_socket_directory  # few services come here

    return f"unix:{make_socket_directory()}/{name.command}.sock"


def main(arguments: Sequence[str]) -> int:
    """Run the service that arguments name; return the exit status: 0, 2 bad usage, 4 it could not start."""
    names = {name.command: name for name in ALL_SERVICE_NAMES}
    if arguments and not arguments[0].startswith("-") and arguments[0] not in names:
        remedy = did_you_mean(arguments[0], names) or f"known: {', '.join(names)}"
        print(f"splitvisor service: no service {arguments[0]!r}; {remedy}", file=sys.stderr)
        return EXIT_USAGE
    if not arguments or arguments[0] not in names:
        listing = "\n".join(f"  {name.command:<10} {name.summary}" for name in ALL_SERVICE_NAMES)
        wanted = bool(arguments) and arguments[0] in ("-h", "--help")
        print(f"usage: splitvisor service NAME [--help] [OPTIONS]\n\n{listing}", file=sys.stdout if wanted else sys.stderr)
        return 0 if wanted else EXIT_USAGE
    return run(names[arguments[0]], arguments[1:])


def run(name: Servable, arguments: Sequence[str]) -> int:
    """Run a service with the flags that follow its name; return the exit status as main() does."""
    end_quietly()  # Until the service handles signals itself; a back end comes here first.
    gc.disable()  # Until the service runs: nothing of what is loaded is garbage.
    try:
        require_open_files()
        options_class = name.load().Options
    except (TooFewFilesError, MissingExtraError) as error:
        return _refuse(name, error)
    parsed = make_parser(name, options_class).parse_args(arguments)
    configure(LogLevel(parsed.log_level), name.package)
    options = options_class(**{option.name: getattr(parsed, option.name) for option in _fields(options_class)})
    use_tls_flags(vars(parsed))
    # What a service makes, sockets, RAM, stores and transcripts, is its user's only.
    os.umask(0o077)
    try:
        listening = Listening(
            parsed.listen or [_default_address(name)], not parsed.no_health, not parsed.no_reflection, parsed.ready_fd,
            parsed.parent_fd, parsed.health, parsed.metrics, parsed.otel or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"),
            parsed.otel is None,
        )  # fmt: skip
        with Kept():
            (uvloop or asyncio).run(serve(name, options, listening))
    except (AddressError, SettingError, MissingExtraError) as error:
        return _refuse(name, error)
    except Exception:
        get_logger(__name__).exception("failed")
        return EXIT_FAILED
    return 0


def _refuse(name: Servable, why: Exception) -> int:
    print(f"{name.program}: {why}", file=sys.stderr)
    return EXIT_USAGE


if __name__ == "__main__":
    with standard_streams("splitvisor service"):
        sys.exit(main(sys.argv[1:]))
