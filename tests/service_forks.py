# SPDX-License-Identifier: GPL-2.0-or-later
"""Services by the hundred: a process that has loaded everything forks one per line of stdin.

A line has, as JSON, the service's arguments and a FIFO that is told when it listens.

Loading a service's libraries takes most of its start. The fork happens before gRPC has made a thread, so what comes after it is
what `splitvisor service` does. stdout gets each one's pid.
"""

from __future__ import annotations

import json
import os
import signal
import sys

import uvloop

import hcall_service.device_tree_store.postgresql
import hcall_service.service
from splitvisor.service import main as service_main

LOADED = (uvloop, hcall_service)


def main() -> None:
    """Fork until stdin ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            work = json.loads(line)
            ready = os.open(work["ready"], os.O_WRONLY)
            os._exit(service_main.main([*work["arguments"], "--ready-fd", str(ready)]))
        print(pid, flush=True)


if __name__ == "__main__":
    main()
