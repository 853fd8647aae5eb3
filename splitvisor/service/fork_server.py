# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts services quickly: one process loads what all of them share, and each service is a fork of it.

Loading gRPC and its kin takes a service longer than everything else that it does before it listens; four services and one command
line on two processors would wait for it most of a second. The process is started before the command line itself has loaded. While
nobody asks for a service it loads more, what single ones want, and it ends when all services run. They become children of whoever
asked, who can wait for them as for any other.

Nothing of gRPC runs before the fork, so the forks are as whole as processes that were started anew.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import select
import signal
import site
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

from splitvisor.process.end import end_process
from splitvisor.process.signals import end_quietly
from splitvisor.process.streams import open_standard_streams

MESSAGE_BYTES = 1 << 20
"""A request: arguments and environment."""
ANSWER_SECONDS = 30.0
SHARED = ("splitvisor.service.main", "splitvisor.trap.server", "splitvisor.rpc.device_tree_pb2_grpc")
"""Modules that most services import."""
OWN = ("cpu_service.service", "hcall_service.service", "of_client_service.service", "vio_service.service")
"""Modules that one service imports, the slowest first."""
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 15, 36
_FILES = 3

_prctl = ctypes.CDLL(None, use_errno=True).prctl
_prctl.argtypes = [ctypes.c_int, ctypes.c_void_p]


class ForkServer:
    """The process that makes services, as its user sees it. Raises OSError where it cannot be started."""

    def __init__(self) -> None:
        # Services outlive the process that forks them; then they are ours.
        if _prctl(_PR_SET_CHILD_SUBREAPER, 1):
            raise OSError(ctypes.get_errno(), "cannot adopt services")
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(ANSWER_SECONDS)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES)
        environment = dict(os.environ)
        if ROOT not in site.getsitepackages():
            # A checkout: this Splitvisor first.
            # An installed one is found anyhow, and its neighbours must not precede Python's own modules.
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, (ROOT, os.environ.get("PYTHONPATH", ""))))
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "splitvisor.service.fork_server", str(other.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                pass_fds=(other.fileno(),),
                env=environment,
                # A ^C on the terminal is the launcher's to handle.
                start_new_session=True,
            )

    def start(self, arguments: Sequence[str], log: int, ready: int, parent: int) -> int:
        """Start a service in a session of its own; return its pid.

        Args:
            arguments: of `splitvisor service`, its name first.
            log: descriptor of its stdout and stderr.
            ready: descriptor for --ready-fd.
            parent: descriptor for --parent-fd.

        Raises OSError when it cannot be started.
        """
        import json  # it takes a while to load, and a process that starts first does so meanwhile

        request = json.dumps({"arguments": arguments, "environment": dict(os.environ)}).encode()
        socket.send_fds(self._socket, [request], [log, ready, parent])
        answer = self._socket.recv(MESSAGE_BYTES)
        if not answer:
            raise OSError("the process that starts services has ended")
        return int(answer)

    def close(self) -> None:
        """End the process; its services go on."""
        self._socket.close()
        self._process.wait()


class _Early:
    """A fork server that was started before it was known to be needed."""

    server: ForkServer | None = None


def head_start() -> None:
    """Start the process already; the next fork_server() returns it."""
    _Early.server = ForkServer()


def fork_server() -> ForkServer:
    """Return a fork server; the caller closes it. Raises OSError where it cannot be started."""
    early, _Early.server = _Early.server, None
    return early or ForkServer()


def _load(requests: socket.socket) -> None:
    """Import what services share, then more while there is no request."""
    for name in SHARED:
        importlib.import_module(name)
    for name in OWN:
        if select.select([requests], [], [], 0)[0]:
            return
        with suppress(ImportError):  # The service that cannot do without says what is wrong.
            importlib.import_module(name)


def _serve(requests: socket.socket) -> int | None:
    """Fork a service for each request. Returns None when there are no more; in a fork, its exit status."""
    while True:
        data, files, _, _ = socket.recv_fds(requests, MESSAGE_BYTES, _FILES)
        if not data:
            return None
        pid = os.fork()
        if pid == 0:
            requests.close()
            return _become(data, files)
        for file in files:
            os.close(file)
        requests.send(str(pid).encode())


def _become(data: bytes, files: Sequence[int]) -> int:
    """Be the service of a request."""
    import json  # is there by now

    from splitvisor.service.main import main

    request = json.loads(data)
    log, ready, parent = files
    os.setsid()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    environment, arguments = request["environment"], request["arguments"]
    assert isinstance(environment, dict)
    assert isinstance(arguments, list)
    os.environ.clear()
    os.environ.update(environment)
    _call_process(f"splitvisor service {arguments[0]}")
    return main([*arguments, "--ready-fd", str(ready), "--parent-fd", str(parent)])


def _call_process(title: str) -> None:
    """Let ps show a title: a fork's command line is else that of the process that made it."""
    _prctl(_PR_SET_NAME, title.rpartition(" ")[2].encode())
    # Fields 48 and 49 of proc(5)'s stat, counted from behind the name, which may have blanks.
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    ctypes.memmove(start, title.encode()[: end - start - 1].ljust(end - start, b"\0"), end - start)


def _end_with(parent: int) -> None:
    """End this process when its parent has ended, in the middle of an import too: it has the parent's stderr open."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # Of this process only: a fork does not inherit it.
    if os.getppid() != parent:
        os._exit(0)


if __name__ == "__main__":
    end_quietly()
    open_standard_streams()
    _end_with(int(sys.argv[2]))
    gc.disable()  # The services turn it on.
    with socket.socket(fileno=int(sys.argv[1])) as control:
        _load(control)
        gc.freeze()  # No collector is to look at what is loaded again.
        status = _serve(control)
    end_process(status or 0)
