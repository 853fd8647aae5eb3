# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: `splitvisor run`, `service`, `guests`, `bench`."""

import os
import sys
from contextlib import suppress


def main() -> None:
    """Run the command line and exit."""
    if sys.argv[1:2] == ["service"]:
        # Without the libraries that only people's commands need.
        from splitvisor.service.main import main as service_main

        sys.exit(service_main(sys.argv[2:]))
    if sys.argv[1:2] == ["run"]:
        # Its services load while it does.
        from splitvisor.service.fork_server import head_start

        with suppress(OSError):  # What is wrong is told where the services are wanted.
            head_start()
    # A failed TLS handshake is one line of ours, not one of gRPC's too; services keep gRPC's, which says what a peer got wrong.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    if sys.argv[1:2] == ["run"]:
        from splitvisor.cli.flags import read  # instead of typer, where that is not needed
        from splitvisor.cli.run import run
        from splitvisor.process.end import end_process

        given = read(run, sys.argv[2:])
        if given is not None:
            end_process(run(**given))
    if sys.argv[1:2] == ["health"]:
        from splitvisor.service.health import main as health_main

        sys.exit(health_main(sys.argv[2:]))
    from splitvisor.cli.app import make_app  # not for services, see above

    make_app(*sys.argv[1:2])(prog_name="splitvisor")
