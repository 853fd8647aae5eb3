# SPDX-License-Identifier: GPL-2.0-or-later
"""SaveMachine, RestoreMachine and MigrateMachine of a real cpu_service: refusals, and that a machine goes on once."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitvisor.machine.snapshot_file import Kind, SectionWriter, read_sections
from splitvisor.net.channels import open_channel
from splitvisor.net.times import seconds
from splitvisor.rpc import machine_pb2 as pb
from splitvisor.rpc import machine_pb2_grpc, state_pb2, trap_pb2, trap_pb2_grpc
from tests.amounts import examples
from tests.services import Service, start_services
from tests.terminals import Terminal

SECONDS = 30.0
BACKENDS = {"hcall": "hcall_service", "vio": "vio_service", "of-client": "of_client_service"}
Stub = machine_pb2_grpc.MachineServiceStub


class Host:
    """Services with the demo guest at its prompt, and a second cpu_service."""

    def __init__(self, directory: Path) -> None:
        self.services = start_services(directory)
        other = directory / "other"
        other.mkdir()
        self.target = Service("cpu", other, "--ram-dir", str(other))
        self._channels = [open_channel(service.address) for service in (self.services["cpu"], self.target)]
        self.stub, self.other = (Stub(channel) for channel in self._channels)
        self.backends = [pb.BackendAddress(name=name, address=self.services[flag].address) for flag, name in BACKENDS.items()]
        config = pb.MachineConfig(
            name="demo",
            memory_mib=256,
            vcpus=1,
            devices=[trap_pb2.DeviceSpec(kind="vty"), trap_pb2.DeviceSpec(kind="nvram")],
            backends=self.backends,
        )
        self.terminal = Terminal(self.services["vio"].address, "demo")
        self.stub.StartMachine(pb.StartMachineRequest(config=config), timeout=SECONDS)
        self.terminal.expect("^> ")

    def answers(self) -> None:
        """The guest runs, and its terminal is the one from the start."""
        self.terminal.type("ls\r")
        self.terminal.expect("vdevice")
        self.terminal.expect("^> ")

    def state(self, stub: Stub) -> pb.MachineState:
        state: pb.MachineState = stub.GetStatus(pb.GetStatusRequest(vm="demo"), timeout=SECONDS).state
        return state

    def close(self) -> None:
        self.terminal.close()
        for channel in self._channels:
            channel.close()
        for service in (*self.services.values(), self.target):
            service.end()


@contextmanager
def new_host() -> Iterator[Host]:
    directory = Path(tempfile.mkdtemp(prefix="sv-", dir="/tmp"))
    host = Host(directory)
    yield host
    host.close()
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """Services whose machine was saved and has ended, and a cpu_service that is to restore it."""
    with new_host() as host:
        yield host


@pytest.fixture(scope="module")
def live() -> Iterator[Host]:
    """Services whose machine runs, before and after each test."""
    with new_host() as host:
        yield host


def save(stub: Stub, *, stop: bool = False) -> bytes:
    responses = list(stub.SaveMachine(pb.SaveMachineRequest(vm="demo", stop=stop), timeout=SECONDS))
    assert responses[-1].saved.ram_bytes > 0
    return b"".join(response.data for response in responses)


def requests(snapshot: bytes, backends: list[pb.BackendAddress], *, go: bool = True) -> Iterator[pb.RestoreMachineRequest]:
    yield pb.RestoreMachineRequest(options=pb.RestoreOptions(vm="demo", backends=backends))
    for start in range(0, len(snapshot), 1 << 20):
        yield pb.RestoreMachineRequest(data=snapshot[start : start + (1 << 20)])
    yield pb.RestoreMachineRequest(complete=pb.RestoreComplete())
    if go:
        yield pb.RestoreMachineRequest(go=pb.RestoreGo())


def refusal(host: Host, messages: Iterator[pb.RestoreMachineRequest]) -> tuple[grpc.StatusCode, str]:
    """How the other cpu_service refuses a snapshot: in one line, and without a machine left behind."""
    with pytest.raises(grpc.RpcError) as refused:
        list(host.other.RestoreMachine(messages, timeout=SECONDS))
    error: Any = refused.value
    assert len(error.details().splitlines()) == 1
    left = host.other.ListMachines(pb.ListMachinesRequest(), timeout=SECONDS).machines
    assert not [each for each in left if each.state in (pb.MACHINE_STATE_RUNNING, pb.MACHINE_STATE_STARTING)]
    return error.code(), error.details()


@pytest.fixture(scope="module")
def snapshot(host: Host) -> bytes:
    return save(host.stub, stop=True)


def rewritten(snapshot: bytes, change: Callable[[Kind, bytes], bytes | None]) -> bytes:
    """A snapshot with other payloads, and right checksums."""
    writer = SectionWriter()
    made = [writer.header()]
    for kind, payload in read_sections(io.BytesIO(snapshot)):
        changed = change(kind, payload)
        if changed is not None:
            made.append(writer.section(kind, changed))
    return b"".join((*made, writer.end()))


def edited(kind: Kind, message: Any, edit: Callable[[Any], object]) -> Callable[[Kind, bytes], bytes | None]:
    def change(found: Kind, payload: bytes) -> bytes | None:
        if found is not kind:
            return payload
        parsed = message.FromString(payload)
        edit(parsed)
        changed: bytes = parsed.SerializeToString()
        return changed

    return change


MACHINE, VCPUS, BACKEND = state_pb2.SavedMachine, state_pb2.SavedVcpus, state_pb2.SavedBackend


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (edited(Kind.MACHINE, MACHINE, lambda it: setattr(it, "version", 2)), "has version 2"),
        (edited(Kind.MACHINE, MACHINE, lambda it: setattr(it, "layout", "unicorn 9")), "other registers (unicorn 9"),
        (edited(Kind.MACHINE, MACHINE, lambda it: setattr(it.config, "vcpus", 2)), "1 vCPUs and the machine in it 2"),
        (edited(Kind.MACHINE, MACHINE, lambda it: setattr(it.config, "memory_mib", 1)), "memory_mib"),
        (edited(Kind.MACHINE, MACHINE, lambda it: it.config.backends.pop()), "no back end of_client_service"),
        (edited(Kind.MACHINE, MACHINE, lambda it: it.rtas_calls.extend([it.rtas_calls[0]])), "RTAS tokens"),
        (edited(Kind.MACHINE, MACHINE, lambda it: it.rtas_calls.add(name="ibm,lost", token=0x5000)), "'ibm,lost'"),
        (edited(Kind.MACHINE, MACHINE, lambda it: it.hypercalls.append(0xF500)), "hypercall 0xf500"),
        (edited(Kind.VCPUS, VCPUS, lambda it: setattr(it.vcpus[0], "registers", b"x" * 99)), "not 99"),
        (edited(Kind.VCPUS, VCPUS, lambda it: setattr(it.vcpus[0], "vpa", 1 << 40)), "outside of RAM"),
        (edited(Kind.VCPUS, VCPUS, lambda it: it.vcpus[0].ClearField("run_state")), "vCPU 0 of the snapshot is damaged"),
        (edited(Kind.INTERRUPTS, state_pb2.SavedInterrupts, lambda it: it.presenters.pop()), "0 interrupt presenters"),
        (edited(Kind.BACKEND, BACKEND, lambda it: setattr(it, "name", "nobody")), "hcall_service"),
        (edited(Kind.BACKEND, BACKEND, lambda it: setattr(it, "state", b"\x08\x07")), "its state has version 7"),
        (edited(Kind.RAM, state_pb2.SavedPages, lambda it: setattr(it, "address", 1 << 40)), "RAM of 268435456 bytes has not"),
        (lambda kind, payload: None if kind is Kind.BACKEND else payload, "the state of every back end"),
        (lambda kind, payload: None if kind is Kind.VCPUS else payload, "does not belong there"),
    ],
)
def test_a_snapshot_that_does_not_fit_is_refused_in_one_line(
    host: Host, snapshot: bytes, change: Callable[[Kind, bytes], bytes | None], text: str
) -> None:
    named = [pb.BackendAddress(name="of_client_service", address="unix:/nowhere")] if "of_client" in text else host.backends[:0]
    code, details = refusal(host, requests(rewritten(snapshot, change), named))
    assert text in details
    assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)


@given(st.data())
@settings(max_examples=examples(12))
def test_a_damaged_snapshot_is_refused_in_one_line(host: Host, snapshot: bytes, data: st.DataObject) -> None:
    damaged = bytearray(snapshot)
    position = data.draw(st.integers(0, len(damaged) - 1))
    if data.draw(st.booleans()):
        del damaged[position:]
    else:
        damaged[position] ^= 1 << data.draw(st.integers(0, 7))
    code, _ = refusal(host, requests(bytes(damaged), []))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


def named(path: Path | str, *more: pb.RestoreMachineRequest) -> Iterator[pb.RestoreMachineRequest]:
    """A restore from a file of cpu_service's host."""
    yield pb.RestoreMachineRequest(options=pb.RestoreOptions(vm="demo", file=str(path)))
    yield from more or [pb.RestoreMachineRequest(complete=pb.RestoreComplete())]


def test_a_file_of_the_host_is_read_as_strictly(host: Host, snapshot: bytes, tmp_path: Path) -> None:
    path = tmp_path / "demo.snapshot"
    path.write_bytes(snapshot[:-1])
    assert refusal(host, named(path)) == refusal(host, requests(snapshot[:-1], []))
    path.write_bytes(snapshot)
    code, details = refusal(host, named(path))
    assert (code, "without go" in details) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    code, details = refusal(host, named(path, pb.RestoreMachineRequest(data=snapshot[:100])))
    assert (code, "unexpected message data" in details) == (grpc.StatusCode.INVALID_ARGUMENT, True)


def test_what_is_no_file_of_the_host_is_refused(host: Host, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, code, text in (
        (pipe, grpc.StatusCode.INVALID_ARGUMENT, "not a regular file"),
        ("/dev/zero", grpc.StatusCode.INVALID_ARGUMENT, "not a regular file"),
        ("demo.snapshot", grpc.StatusCode.INVALID_ARGUMENT, "not an absolute path"),
        (tmp_path / "none", grpc.StatusCode.FAILED_PRECONDITION, "No such file"),
    ):
        found, details = refusal(host, named(path))
        assert (found, text in details) == (code, True)


def test_a_snapshot_of_another_vm_is_refused(host: Host, snapshot: bytes) -> None:
    change = edited(Kind.MACHINE, MACHINE, lambda it: setattr(it.config, "name", "other"))
    code, details = refusal(host, requests(rewritten(snapshot, change), []))
    assert (code, "'other'" in details) == (grpc.StatusCode.INVALID_ARGUMENT, True)


def test_a_restore_without_go_runs_nothing(host: Host, snapshot: bytes) -> None:
    code, details = refusal(host, requests(snapshot, [], go=False))
    assert (code, "without go" in details) == (grpc.StatusCode.INVALID_ARGUMENT, True)


def test_messages_out_of_order_are_refused(host: Host, snapshot: bytes) -> None:
    first, second, *_ = requests(snapshot, [])
    for messages in ([second], [first, first], [first, second], [first, pb.RestoreMachineRequest()]):
        code, _ = refusal(host, iter(messages))
        assert code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_machine_is_not_restored_over_one_that_runs(live: Host, snapshot: bytes) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        list(live.stub.RestoreMachine(requests(snapshot, []), timeout=SECONDS))
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_nothing_to_save_is_said(live: Host) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        list(live.other.SaveMachine(pb.SaveMachineRequest(vm="demo"), timeout=SECONDS))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_reader_that_goes_away_leaves_the_machine_running(live: Host) -> None:
    call = live.stub.SaveMachine(pb.SaveMachineRequest(vm="demo"), timeout=SECONDS)
    next(iter(call))
    call.cancel()
    live.answers()
    assert save(live.stub)


def test_a_paused_machine_is_saved_and_stays_paused(live: Host) -> None:
    live.stub.PauseMachine(pb.PauseMachineRequest(vm="demo"), timeout=SECONDS)
    assert save(live.stub)
    assert live.state(live.stub) == pb.MACHINE_STATE_PAUSED
    live.stub.ResumeMachine(pb.ResumeMachineRequest(vm="demo"), timeout=SECONDS)
    live.answers()


def migration(host: Host, target: str) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as refused:
        host.stub.MigrateMachine(pb.MigrateMachineRequest(vm="demo", target=target), timeout=SECONDS)
    error: Any = refused.value
    return error.code(), error.details()


def test_a_target_that_is_not_there_leaves_the_machine_running(live: Host) -> None:
    code, details = migration(live, "unix:/nonexistent/cpu.sock")
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "/nonexistent/cpu.sock" in details
    assert migration(live, "192.0.2.1:70")[0] is grpc.StatusCode.INVALID_ARGUMENT
    live.answers()


class Thief:
    """A cpu_service that takes over the terminal's session at vio_service, and then fails, before `go` or after."""

    def __init__(self, *, ready: bool) -> None:
        self.ready = ready
        self.took = threading.Event()

    def handlers(self) -> grpc.GenericRpcHandler:
        """The two rpcs that a move needs."""
        restore = grpc.stream_stream_rpc_method_handler(
            self.restore, pb.RestoreMachineRequest.FromString, pb.RestoreMachineResponse.SerializeToString
        )
        status = grpc.unary_unary_rpc_method_handler(
            self.status, pb.GetStatusRequest.FromString, pb.GetStatusResponse.SerializeToString
        )
        rpcs: dict[str, grpc.RpcMethodHandler[Any, Any]] = {"RestoreMachine": restore, "GetStatus": status}
        return grpc.method_handlers_generic_handler("splitvisor.control.v1.MachineService", rpcs)

    def restore(self, request_iterator: Iterator[Any], context: Any) -> Iterator[pb.RestoreMachineResponse]:
        data = bytearray()
        for request in request_iterator:
            data += request.data
            if request.HasField("complete"):
                break
        sections = list(read_sections(io.BytesIO(bytes(data))))
        machine = MACHINE.FromString(sections[0][1])
        states = [BACKEND.FromString(payload) for kind, payload in sections if kind is Kind.BACKEND]
        [vio] = [state for state in states if state.name == "vio_service"]
        [address] = [backend.address for backend in machine.config.backends if backend.name == vio.name]
        hello = trap_pb2.Hello(
            vm="demo", incarnation=machine.incarnation + 1, vcpus=1, ram_bytes=256 << 20, devices=vio.devices,
            beginning=trap_pb2.BEGINNING_MOVED, slots=trap_pb2.SlotRange(count=64),
        )  # fmt: skip
        with open_channel(address) as channel:
            messages = (
                trap_pb2.AttachRequest(hello=hello),
                trap_pb2.AttachRequest(restore_state=trap_pb2.RestoreState(data=vio.state, last=True)),
            )
            call = trap_pb2_grpc.TrapServiceStub(channel).Attach(iter(messages))
            assert next(iter(call)).HasField("offer")
            self.took.set()
            call.cancel()
        if self.ready:
            yield pb.RestoreMachineResponse(ready=pb.RestoreReady(vm="demo"))
            next(request_iterator)
        context.abort(grpc.StatusCode.INTERNAL, "failed on purpose")

    def status(self, request: pb.GetStatusRequest, context: Any) -> pb.GetStatusResponse:
        return pb.GetStatusResponse(vm="demo", state=pb.MACHINE_STATE_STOPPED, detail="it stopped before it ran")


@pytest.mark.parametrize("ready", [False, True], ids=["before-go", "after-go"])
def test_a_machine_goes_on_when_the_target_had_its_sessions_and_failed(live: Host, short_path: Path, ready: bool) -> None:
    thief = Thief(ready=ready)
    with futures.ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((thief.handlers(),))
        server.add_insecure_port(f"unix:{short_path}/thief.sock")
        server.start()
        _, details = migration(live, f"unix:{short_path}/thief.sock")
        server.stop(0).wait()
    assert thief.took.is_set()
    assert ("before it ran" if ready else "failed on purpose") in details
    assert live.state(live.stub) == pb.MACHINE_STATE_RUNNING
    live.answers()


def test_a_machine_moves_there_and_back(live: Host) -> None:
    host = live
    for stub, target in ((host.stub, host.target.address), (host.other, host.services["cpu"].address)):
        moved = stub.MigrateMachine(pb.MigrateMachineRequest(vm="demo", target=target), timeout=SECONDS)
        assert seconds(moved.downtime) > 0
        assert moved.sent_bytes > 10_000
        assert host.state(stub) == pb.MACHINE_STATE_STOPPED
        host.answers()
    assert host.state(host.stub) == pb.MACHINE_STATE_RUNNING
    # One terminal, one stream of output: nothing was shown twice.
    assert host.terminal.text.count("Splitvisor's demo guest") == 1
