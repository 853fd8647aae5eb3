# SPDX-License-Identifier: GPL-2.0-or-later
"""A gateway as a process of its own, for tests."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.guests.harness import ROOT, STEP_SECONDS

VENDOR = ROOT / "gateway_service/static/vendor/xterm.mjs"

needs_xterm = pytest.mark.skipif(not VENDOR.exists(), reason="xterm.js has not been fetched; ./dev web does, with npm")


class GatewayProcess:
    """A gateway that listens on a port of its own."""

    def __init__(self, runtime: Path, *arguments: str) -> None:
        self.grpc = f"unix:{runtime}/gateway.sock"
        command = [sys.executable, "-m", "splitvisor.service.main", "gateway", "--listen", self.grpc]
        anywhere = () if "--listen-http" in arguments else ("--listen-http", "127.0.0.1:0")
        self.process = subprocess.Popen(
            [*command, *anywhere, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
        )  # fmt: skip
        assert self.process.stdout is not None
        self.start_url = self.process.stdout.readline().decode().strip()
        assert self.start_url, "the gateway did not start"
        parts = urlsplit(self.start_url)
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self.port = parts.port or 0
        self.token = parts.query.removeprefix("token=")

    def end(self) -> int:
        """End it as an operator would; return its exit status."""
        self.process.terminate()
        status = self.process.wait(STEP_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


def token_table(name: str, role: str, *vms: str, token: str = "") -> str:
    """Return an entry of a file of tokens; the token is like the name unless told."""
    digest = hashlib.sha256((token or name).encode()).hexdigest()
    patterns = ", ".join(f'"{pattern}"' for pattern in vms)
    return f'[[token]]\nname = "{name}"\nsha256 = "{digest}"\nrole = "{role}"\nvms = [{patterns}]\n'
