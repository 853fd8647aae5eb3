# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor health` on real servers: by hand over a unix socket, with gRPC where there is more to say."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2, health_pb2_grpc

from splitvisor.service import health, health_probe
from tests.guests.harness import ROOT, STEP_SECONDS
from tests.services import Service

SERVING, NOT_SERVING, USAGE = 0, 1, 2


@pytest.fixture
def service(short_path: Path) -> Iterator[Service]:
    service = Service("hcall", short_path, "--store", ":memory:")
    yield service
    service.end()


def modules_of_a_check(*arguments: str) -> set[str]:
    """What a process has loaded that made a check."""
    code = "import sys; from splitvisor.service.health import main; main(sys.argv[1:]); print(*sys.modules)"
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=STEP_SECONDS, cwd=ROOT, check=True)
    return set(done.stdout.split())


def test_a_service_that_serves_is_recognised_without_grpc(service: Service) -> None:
    assert health.main([service.address]) == SERVING
    assert not {"grpc", "argparse", "dataclasses", "asyncio"} & modules_of_a_check(service.address)


def test_a_check_loads_neither_the_command_line_nor_generated_code(short_path: Path) -> None:
    modules = modules_of_a_check(f"unix:{short_path}/nobody.sock", "--timeout", "0.01")
    assert "grpc" in modules
    assert not {"typer", "rich", "google.protobuf", "uvloop"} & modules


@pytest.mark.parametrize("arguments", [(), ("--timeout", "0.2")], ids=["by hand", "with gRPC"])
def test_a_service_that_does_not_answer_is_named(
    service: Service, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(health, "TIMEOUT_SECONDS", 0.2)
    service.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, service.process.pid, os.WSTOPPED)
    try:
        assert health.main([service.address, *arguments]) == NOT_SERVING
    finally:
        service.process.send_signal(signal.SIGCONT)
    assert capsys.readouterr().err == f"splitvisor health: {service.address}: no answer within 0.2 s; is it running?\n"


def test_it_is_told_why_there_is_no_connection(short_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = f"unix:{short_path}/nobody.sock"
    assert health.main([address, "--timeout", "0.5"]) == NOT_SERVING
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"splitvisor health: {address}: not within 0.5 s: ")
    assert "No such file or directory" in line


def test_a_server_that_says_that_it_does_not_serve_is_believed(short_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = f"unix:{short_path}/s.sock"
    servicer = grpc_health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    with ThreadPoolExecutor() as workers:
        server = grpc.server(workers)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        server.add_insecure_port(address)
        server.start()
        try:
            assert health.main([address]) == NOT_SERVING
            servicer.set("", health_pb2.HealthCheckResponse.SERVING)
            assert health.main([address]) == SERVING
        finally:
            server.stop(None).wait(STEP_SECONDS)
    assert capsys.readouterr().err == f"splitvisor health: {address}: not serving\n"


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(70_000), b"\0\0\7\0\1\0\0\0\1\0\0\0\0\2\10\2"]
)
def test_whoever_answers_anything_else_does_not_serve(short_path: Path, answer: bytes) -> None:
    path = str(short_path / "s.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def reply() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        replying = threading.Thread(target=reply)
        replying.start()
        assert not health_probe.serves(path, STEP_SECONDS)
        replying.join(STEP_SECONDS)


def test_nobody_at_all_does_not_serve(short_path: Path) -> None:
    assert not health_probe.serves(str(short_path / "nobody.sock"), STEP_SECONDS)
    assert not health_probe.serves("/" + "long/" * 50, STEP_SECONDS)


def test_an_answer_is_understood_however_it_is_cut(service: Service) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(STEP_SECONDS)
        connection.connect(str(service.socket))
        connection.sendall(health_probe._REQUEST)
        received = b""
        while not health_probe._data_of(received):
            received += connection.recv(1)
    assert health_probe._data_of(received) == b"\0\0\0\0\2" + health_probe.SERVING_MESSAGE
    assert {health_probe._data_of(received[:end]) for end in range(len(received))} == {b""}


def test_a_place_that_may_not_be_spoken_to_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert health.main(["example.org:1"]) == USAGE
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "0", "1e300", "soon"])
def test_a_time_that_is_none_is_bad_usage(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        health.main(["127.0.0.1:1", f"--timeout={text}"])
    assert ended.value.code == USAGE
    assert f"{text!r} is not a number of seconds" in capsys.readouterr().err
