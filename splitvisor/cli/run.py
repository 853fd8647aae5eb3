# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor run`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import uvloop

from splitvisor.cli import machine_options as options
from splitvisor.cli.flags import Flag
from splitvisor.machine.config import ConfigError, MachineConfig
from splitvisor.machine.devices import check_nvram_files
from splitvisor.machine.machine_file import apply_flags, read_machine_file
from splitvisor.machine.service_addresses import parse_backends, parse_connect
from splitvisor.machine.settings import not_text
from splitvisor.process.appended import AppendedFile
from splitvisor.process.inputs import Pipes
from splitvisor.process.open_files import TooFewFilesError, require_open_files
from splitvisor.process.signals import Kept
from splitvisor.process.text import bytes_of, is_text
from splitvisor.run import launcher
from splitvisor.run.exit_status import ExitStatus
from splitvisor.run.report import Report
from splitvisor.run.request import Progress, Recorded, RunRequest, RunResult
from splitvisor.run.running_vms import namesake

if TYPE_CHECKING:
    from splitvisor.faults.run import FaultPlan


class LogLevel(StrEnum):
    """As splitvisor.process.logging has it, without loading that."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


_RUN = "This run"
_T = TypeVar("_T")


def run(
    *,
    kernel: options.Kernel = None,
    initrd: options.Initrd = None,
    append: options.Append = None,
    firmware: options.Firmware = None,
    boot: options.Boot = None,
    flat_tree: options.FlatTree = False,
    boot_protocol: options.BootProtocol = None,
    machine: options.MachineFile = None,
    name: Annotated[str | None, Flag(metavar="NAME", help="The VM's name \\[guest]", panel=options.MACHINE)] = None,
    memory: options.Memory = None,
    smp: options.Smp = None,
    vty: options.Vty = None,
    nvram: options.Nvram = None,
    disk: options.Disk = None,
    cdrom: options.Cdrom = None,
    watchdog_action: options.WatchdogAction = None,
    net: options.Net = None,
    no_shared_memory: options.NoSharedMemory = False,
    snapshot: Annotated[
        Path | None,
        Flag(("--from",), metavar="FILE", help="Continue from a snapshot of `vm save`", panel=options.MACHINE),
    ] = None,
    exit_on: Annotated[str | None, Flag(metavar="TEXT", help="End with 0 once the console shows TEXT", panel=_RUN)] = None,
    timeout: Annotated[float | None, Flag(metavar="S", least=0.001, help="End with 124 after S seconds", panel=_RUN)] = None,
    connect: Annotated[list[str] | None, options.connect("Use a running service", _RUN)] = None,
    backend: options.Backend = None,
    log_level: Annotated[
        LogLevel, Flag(metavar="LEVEL", help="Log level of the services; debug also logs to stderr", panel=_RUN)
    ] = LogLevel.INFO,
    log_file: Annotated[Path | None, Flag(metavar="FILE", help="Append the services' logs to FILE", panel=_RUN)] = None,
    store: Annotated[
        str | None,
        Flag(
            metavar="PLACE",
            help="Keep device trees there: a file, or postgresql://... Default: deleted with the run",
            panel=_RUN,
        ),
    ] = None,
    transcripts: Annotated[
        Path | None, Flag(metavar="DIR", help="Keep a transcript of each console in this directory", panel=_RUN)
    ] = None,
    record: Annotated[
        Path | None,
        Flag(metavar="FILE", help="Record all messages between the machine and its back ends", panel=_RUN),
    ] = None,
    fault: Annotated[
        Path | None,
        Flag(metavar="FILE.toml", help="Inject the faults of this scenario", panel=_RUN),
    ] = None,
    report: Annotated[Path | None, Flag(metavar="FILE.json", help="Write a report of the run: calls, times", panel=_RUN)] = None,
) -> int:
    """Run a guest; its console is this terminal. Without a kernel, what is on its disks, else the demo guest.

    [bold]^][/] opens a menu, where [bold]q[/] leaves. Exit status: 0 the guest powered off, 1 it powered off before
    it showed the text of --exit-on, 2 bad usage or configuration, 3 the guest crashed, 4 a service failed, or a recording
    or report is not whole, 5 the output could not be written, 124 timeout.
    """
    began = time.monotonic()
    progress = _progress_line() if sys.stderr.isatty() else lambda _step: None
    pipes = Pipes(began + timeout if timeout is not None else None, progress)
    try:
        files = _given(pipes, machine=machine, snapshot=snapshot, fault=fault, kernel=kernel, initrd=initrd, firmware=firmware)
    except TimeoutError as error:
        print(f"splitvisor run: {error.filename}: {error.strerror}: {timeout:g} s", file=sys.stderr)
        return ExitStatus.TIMEOUT
    except OSError as error:
        print(f"splitvisor run: {error.filename}: {error.strerror}", file=sys.stderr)
        return ExitStatus.USAGE
    flags = {
        "name": name,
        "memory": memory,
        "smp": smp,
        "kernel": files["kernel"],
        "initrd": files["initrd"],
        "append": append,
        "firmware": files["firmware"],
        "boot": boot,
        "flat_tree": True if flat_tree else None,
        "boot_protocol": boot_protocol,
        "watchdog_action": watchdog_action,
        "shared_memory": False if no_shared_memory else None,
        "vty": vty,
        "nvram": nvram,
        "disk": disk,
        "cdrom": cdrom,
        "net": net,
        "backend": parse_backends(backend) if backend else None,
    }
    try:
        require_open_files()
        if snapshot is None:
            base = read_machine_file(machine, read_from=files["machine"]) if machine is not None else MachineConfig()
            config = apply_flags(base, flags)
        else:
            snapshot = files["snapshot"] or snapshot
            config = _saved_config(snapshot, {**flags, "machine": machine, "record": record})
        targets = parse_connect(connect or [])
        _check_own_options(record, exit_on, transcripts, targets)
        if "vio" not in targets:
            check_nvram_files(config, "splitvisor run", nvram)
        if "cpu" in targets:
            _refuse_pipes(pipes, files)
        request = RunRequest(
            config=config,
            snapshot=snapshot,
            connect=targets,
            log_level=log_level.value,
            log_file=_opened("--log-file", log_file, AppendedFile) if log_file is not None else None,
            log_to_stderr=log_level is LogLevel.DEBUG,
            exit_on=bytes_of(exit_on) if exit_on else None,
            timeout=timeout,
            began=began,
            report=_opened("--report", report, lambda path: Report(path, began)) if report is not None else None,
            store=store,
            transcripts=transcripts,
            record=Recorded(record) if record is not None else None,
            faults=_faults(files["fault"], config, targets) if files["fault"] is not None else None,
            progress=progress,
            notice=_notice,
        )
    except ConfigError as error:
        print(pipes.named(str(error)), file=sys.stderr)
        return ExitStatus.USAGE
    except TooFewFilesError as error:
        print(f"splitvisor run: {error}", file=sys.stderr)
        return ExitStatus.USAGE
    with Kept():
        if note := namesake(config.name):
            print(f"splitvisor run: {note}", file=sys.stderr)
        result = uvloop.run(launcher.run(request))
    return _keep_account(request, replace(result, message=pipes.named(result.message)))


def _check_own_options(record: Path | None, exit_on: str | None, transcripts: Path | None, targets: Mapping[str, str]) -> None:
    """Raise ConfigError for what cannot be, of options that are about the run and not about its machine."""
    if record is not None and not is_text(str(record.absolute())):
        raise ConfigError("splitvisor run", "--record", *not_text(record.absolute()))
    if exit_on == "":
        raise ConfigError("splitvisor run", "--exit-on", "an empty text is found at once", "give what the console is to show")
    if transcripts is not None and "vio" in targets:
        remedy = "start that `splitvisor service vio` with --transcripts"
        raise ConfigError("splitvisor run", "--transcripts", "the vio_service of --connect is already running", remedy)


def _keep_account(request: RunRequest, result: RunResult) -> ExitStatus:
    """Say how the run ended, write the report, and say what was not written; return the exit status."""
    if result.message:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # The guest may have left its last line unfinished.
        print(f"splitvisor run: {result.message}", file=sys.stderr)
    if request.log_file is not None and request.log_file.lost_bytes:
        log = request.log_file
        print(f"splitvisor run: --log-file {log.path}: {log.failure}; {log.lost_bytes} bytes are lost", file=sys.stderr)
    if request.record is not None and request.record.failure:
        print(f"splitvisor run: {request.record.failure}", file=sys.stderr)
        message = "\n".join(filter(None, (result.message, request.record.failure)))
        result = RunResult(result.status or ExitStatus.SERVICE_FAILED, message)
    if request.report is not None:
        try:
            request.report.write(int(result.status), result.message)
        except OSError as error:
            print(f"splitvisor run: --report {request.report.path}: {error.strerror}; there is no report", file=sys.stderr)
            return result.status or ExitStatus.SERVICE_FAILED
    return result.status


def _given(
    pipes: Pipes, machine: Path | None, snapshot: Path | None, fault: Path | None, **images: str | None
) -> dict[str, Path | None]:
    """Return the files of flags, each where every process finds it. Raises OSError and TimeoutError."""
    paths = {"machine": machine, "snapshot": snapshot, "fault": fault}
    for kind, value in images.items():
        paths[kind] = _image(kind, value) if value is not None else None
    return {key: pipes.file(path) if path is not None else None for key, path in paths.items()}


def _refuse_pipes(pipes: Pipes, files: Mapping[str, Path | None]) -> None:
    """Raise ConfigError for an image that only services of this run find."""
    for image in ("kernel", "initrd", "firmware"):
        if pipes.gave(files[image]):
            what = "a cpu_service that runs already cannot read a pipe of this command"
            raise ConfigError("splitvisor run", f"--{image}", what, "give a file of its host")


def _opened(flag: str, path: Path, opener: Callable[[Path], _T]) -> _T:
    """Return what opener makes of a file. Raises ConfigError."""
    try:
        return opener(path)
    except OSError as error:
        raise ConfigError("splitvisor run", flag, f"{path}: {error.strerror}", "give another file") from None


def _image(kind: str, value: str) -> Path:
    from splitvisor.guests.fetch import resolve  # the demo guest and snapshots have no use for it

    return resolve(kind, value)


def _saved_config(snapshot: Path, flags: Mapping[str, object]) -> MachineConfig:
    """Return what the run must know of a saved machine. Raises ConfigError, also for flags that would change the machine."""
    from splitvisor.machine.snapshot_file import SnapshotError, read_machine  # not needed without a snapshot

    given = next((name for name, value in flags.items() if value is not None), None)
    if given is not None:
        flag = f"--{'no-shared-memory' if given == 'shared_memory' else given.replace('_', '-')}"
        raise ConfigError("splitvisor run", flag, "the machine of a snapshot is as it was saved", f"leave out {flag}")
    try:
        saved = read_machine(snapshot).config
        return MachineConfig(name=saved.name, memory=saved.memory_mib << 20, vcpus=saved.vcpus)
    except (SnapshotError, OSError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        remedy = "give a file that `splitvisor vm save` wrote"
        raise ConfigError("splitvisor run", "--from", f"{snapshot}: {text}", remedy) from None


def _faults(path: Path, config: MachineConfig, connect: Mapping[str, str]) -> FaultPlan:
    """Return the plan of a scenario that fits the run. Raises ConfigError."""
    from splitvisor.faults.run import FaultPlan  # few runs have faults
    from splitvisor.faults.scenario import ScenarioError, read_scenario

    try:
        plan = FaultPlan(path.absolute(), read_scenario(path))
    except ScenarioError as error:
        raise ConfigError("splitvisor run", "--fault", error.problem.what, error.problem.remedy) from None
    plan.check(config, connect)
    return plan


def _notice(text: str) -> None:
    """Show a line of ours on stderr, between what the guest writes."""
    line = f"splitvisor run: {text}"
    os.write(sys.stderr.fileno(), (f"\r\n{line}\r\n" if sys.stderr.isatty() else f"{line}\n").encode())


def _progress_line() -> Progress:
    """Return what shows one changing line on stderr, and takes it away when there is nothing more to show."""

    shown = False

    def show(step: str) -> None:
        nonlocal shown
        # Only what was shown here is wiped: in the end the line is the guest's.
        if step or shown:
            # os.write: the terminal may be raw and belong to the guest a moment later.
            os.write(sys.stderr.fileno(), f"\r\x1b[K{step + ' ...' if step else ''}".encode())
        shown = bool(step)

    return show
