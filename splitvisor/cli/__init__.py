# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: `splitvisor run`, `service`, `guests`, `bench`."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from splitvisor.process.streams import standard_streams


def main() -> None:
    """Run the command line and exit."""
    program = " ".join(["splitvisor", *sys.argv[1:2]])
    with standard_streams(program):
        try:
            _main(sys.argv[1:])
        except ImportError as error:
            from splitvisor.process.extras import explain

            why = explain(error)
            if why is None:
                raise
            print(f"{program}: {why}", file=sys.stderr)
            sys.exit(2)
        except UnicodeEncodeError as error:
            from splitvisor.process.text import explain as explain_text

            why = explain_text(error)
            if why is None:
                raise
            print(f"{program}: {why}", file=sys.stderr)
            sys.exit(2)
        except OSError as error:
            # What a command has no better words for: a directory that is missing or full, a limit of this user's.
            if sys.flags.dev_mode:
                raise
            print(f"{program}: {_told(error)}", file=sys.stderr)
            sys.exit(1)


def _told(error: OSError) -> str:
    """Return in one line what the system said."""
    try:
        os.getcwd()
    except OSError:
        return "the working directory is gone; change to one that is there"
    reason = error.strerror or str(error)
    return reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}"


def _main(arguments: Sequence[str]) -> None:
    command = arguments[0] if arguments else ""
    if command == "run":
        # Its services load while it does.
        from splitvisor.service.fork_server import head_start

        with suppress(OSError):  # What is wrong is told where the services are wanted.
            head_start()
    if command != "service":
        # A failed TLS handshake is one line of ours, not one of gRPC's too; services keep gRPC's: what a peer got wrong.
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    if command == "--version":
        from splitvisor.process.versions import versions

        print(versions())
        sys.exit(0)
    if command in SMALL:
        sys.exit(SMALL[command](arguments[1:]))
    if command in PLAIN and len(arguments) == 1:
        import splitvisor.cli.plain

        sys.exit(getattr(splitvisor.cli.plain, command)())
    if command == "run":
        from splitvisor.cli.flags import read  # instead of typer, where that is not needed
        from splitvisor.cli.run import run
        from splitvisor.process.end import end_process

        given = read(run, arguments[1:])
        if given is not None:
            end_process(run(**given))
    from splitvisor.process.extras import require  # neither is for services, see above

    require("run")
    from splitvisor.cli.app import make_app

    make_app(*arguments[:1])(prog_name="splitvisor")


def _service(arguments: Sequence[str]) -> int:
    from splitvisor.service.main import main as service_main

    return service_main(arguments)


def _health(arguments: Sequence[str]) -> int:
    from splitvisor.service.health import main as health_main

    return health_main(arguments)


SMALL: Mapping[str, Callable[[Sequence[str]], int]] = {"service": _service, "health": _health}
"""Commands without the libraries that only people's other commands need; they read their arguments themselves."""
PLAIN = frozenset({"version", "protos"})
"""Commands without arguments that need no libraries; the same."""
