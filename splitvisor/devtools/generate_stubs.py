# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the gRPC stubs of splitvisor/rpc from proto/: `./dev proto`. Needs the development environment (grpcio-tools)."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "proto"

_REWRITES = (
    # protoc names Python modules after the .proto files' directories; ours live in splitvisor.rpc, outside of proto/.
    (re.compile(r"from splitvisor\.\w+\.v1 import"), "from splitvisor.rpc import"),
    (re.compile(r"splitvisor\.\w+\.v1\.(\w+_pb2)"), r"splitvisor.rpc.\1"),
)


class StubError(Exception):
    """protoc failed; the message is its own."""


def generate(directory: Path) -> None:
    """Write the stubs and their .pyi to directory. Raises StubError."""
    plugin = shutil.which("protoc-gen-mypy_grpc", path=str(Path(sys.executable).parent))
    if plugin is None:
        raise StubError("there is no protoc-gen-mypy_grpc beside the interpreter; run ./dev proto")
    with tempfile.TemporaryDirectory() as made:
        outputs = [f"--{kind}_out={made}" for kind in ("python", "pyi", "grpc_python", "mypy_grpc")]
        files = sorted(str(path) for path in PROTOS.rglob("*.proto"))
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", f"--plugin=protoc-gen-mypy_grpc={plugin}"]
        done = subprocess.run([*command, *outputs, *files], capture_output=True, text=True, check=False)
        if done.returncode:
            raise StubError(done.stderr.strip())
        for path in sorted(Path(made).glob("splitvisor/*/v1/*.py*")):
            text = path.read_text()
            for pattern, replacement in _REWRITES:
                text = pattern.sub(replacement, text)
            (directory / path.name).write_text(text)


if __name__ == "__main__":
    generate(Path(sys.argv[1]))
