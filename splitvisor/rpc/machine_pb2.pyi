import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from splitvisor.rpc import access_pb2 as _access_pb2
from splitvisor.rpc import trap_pb2 as _trap_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BootProtocol(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BOOT_PROTOCOL_UNSPECIFIED: _ClassVar[BootProtocol]
    BOOT_PROTOCOL_EPAPR: _ClassVar[BootProtocol]

class WatchdogAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WATCHDOG_ACTION_UNSPECIFIED: _ClassVar[WatchdogAction]
    WATCHDOG_ACTION_RESET: _ClassVar[WatchdogAction]
    WATCHDOG_ACTION_POWER_OFF: _ClassVar[WatchdogAction]
    WATCHDOG_ACTION_NMI: _ClassVar[WatchdogAction]
    WATCHDOG_ACTION_LOG: _ClassVar[WatchdogAction]

class MachineState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MACHINE_STATE_UNSPECIFIED: _ClassVar[MachineState]
    MACHINE_STATE_NONE: _ClassVar[MachineState]
    MACHINE_STATE_STARTING: _ClassVar[MachineState]
    MACHINE_STATE_RUNNING: _ClassVar[MachineState]
    MACHINE_STATE_PAUSED: _ClassVar[MachineState]
    MACHINE_STATE_POWERED_OFF: _ClassVar[MachineState]
    MACHINE_STATE_CRASHED: _ClassVar[MachineState]
    MACHINE_STATE_STOPPED: _ClassVar[MachineState]
    MACHINE_STATE_FAILED: _ClassVar[MachineState]

class ResultClass(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESULT_CLASS_UNSPECIFIED: _ClassVar[ResultClass]
    RESULT_CLASS_SUCCESS: _ClassVar[ResultClass]
    RESULT_CLASS_BUSY: _ClassVar[ResultClass]
    RESULT_CLASS_OTHER: _ClassVar[ResultClass]
    RESULT_CLASS_ERROR: _ClassVar[ResultClass]
    RESULT_CLASS_UNAVAILABLE: _ClassVar[ResultClass]

class WatchedKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WATCHED_KIND_UNSPECIFIED: _ClassVar[WatchedKind]
    WATCHED_KIND_HYPERCALL: _ClassVar[WatchedKind]
    WATCHED_KIND_RTAS: _ClassVar[WatchedKind]
    WATCHED_KIND_CLIENT_SERVICE: _ClassVar[WatchedKind]
BOOT_PROTOCOL_UNSPECIFIED: BootProtocol
BOOT_PROTOCOL_EPAPR: BootProtocol
WATCHDOG_ACTION_UNSPECIFIED: WatchdogAction
WATCHDOG_ACTION_RESET: WatchdogAction
WATCHDOG_ACTION_POWER_OFF: WatchdogAction
WATCHDOG_ACTION_NMI: WatchdogAction
WATCHDOG_ACTION_LOG: WatchdogAction
MACHINE_STATE_UNSPECIFIED: MachineState
MACHINE_STATE_NONE: MachineState
MACHINE_STATE_STARTING: MachineState
MACHINE_STATE_RUNNING: MachineState
MACHINE_STATE_PAUSED: MachineState
MACHINE_STATE_POWERED_OFF: MachineState
MACHINE_STATE_CRASHED: MachineState
MACHINE_STATE_STOPPED: MachineState
MACHINE_STATE_FAILED: MachineState
RESULT_CLASS_UNSPECIFIED: ResultClass
RESULT_CLASS_SUCCESS: ResultClass
RESULT_CLASS_BUSY: ResultClass
RESULT_CLASS_OTHER: ResultClass
RESULT_CLASS_ERROR: ResultClass
RESULT_CLASS_UNAVAILABLE: ResultClass
WATCHED_KIND_UNSPECIFIED: WatchedKind
WATCHED_KIND_HYPERCALL: WatchedKind
WATCHED_KIND_RTAS: WatchedKind
WATCHED_KIND_CLIENT_SERVICE: WatchedKind

class MachineConfig(_message.Message):
    __slots__ = ("name", "memory_mib", "vcpus", "kernel", "initrd", "append", "firmware", "devices", "backends", "private_memory", "uuid", "flat_tree", "record_file", "boot", "watchdog_action", "boot_protocol")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MIB_FIELD_NUMBER: _ClassVar[int]
    VCPUS_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    INITRD_FIELD_NUMBER: _ClassVar[int]
    APPEND_FIELD_NUMBER: _ClassVar[int]
    FIRMWARE_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    PRIVATE_MEMORY_FIELD_NUMBER: _ClassVar[int]
    UUID_FIELD_NUMBER: _ClassVar[int]
    FLAT_TREE_FIELD_NUMBER: _ClassVar[int]
    RECORD_FILE_FIELD_NUMBER: _ClassVar[int]
    BOOT_FIELD_NUMBER: _ClassVar[int]
    WATCHDOG_ACTION_FIELD_NUMBER: _ClassVar[int]
    BOOT_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    name: str
    memory_mib: int
    vcpus: int
    kernel: str
    initrd: str
    append: str
    firmware: str
    devices: _containers.RepeatedCompositeFieldContainer[_trap_pb2.DeviceSpec]
    backends: _containers.RepeatedCompositeFieldContainer[BackendAddress]
    private_memory: bool
    uuid: str
    flat_tree: bool
    record_file: str
    boot: _containers.RepeatedScalarFieldContainer[str]
    watchdog_action: WatchdogAction
    boot_protocol: BootProtocol
    def __init__(self, name: _Optional[str] = ..., memory_mib: _Optional[int] = ..., vcpus: _Optional[int] = ..., kernel: _Optional[str] = ..., initrd: _Optional[str] = ..., append: _Optional[str] = ..., firmware: _Optional[str] = ..., devices: _Optional[_Iterable[_Union[_trap_pb2.DeviceSpec, _Mapping]]] = ..., backends: _Optional[_Iterable[_Union[BackendAddress, _Mapping]]] = ..., private_memory: _Optional[bool] = ..., uuid: _Optional[str] = ..., flat_tree: _Optional[bool] = ..., record_file: _Optional[str] = ..., boot: _Optional[_Iterable[str]] = ..., watchdog_action: _Optional[_Union[WatchdogAction, str]] = ..., boot_protocol: _Optional[_Union[BootProtocol, str]] = ...) -> None: ...

class BackendAddress(_message.Message):
    __slots__ = ("name", "address", "vio_slots")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    VIO_SLOTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    vio_slots: int
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., vio_slots: _Optional[int] = ...) -> None: ...

class StartMachineRequest(_message.Message):
    __slots__ = ("config",)
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    config: MachineConfig
    def __init__(self, config: _Optional[_Union[MachineConfig, _Mapping]] = ...) -> None: ...

class StartMachineResponse(_message.Message):
    __slots__ = ("incarnation",)
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    incarnation: int
    def __init__(self, incarnation: _Optional[int] = ...) -> None: ...

class PauseMachineRequest(_message.Message):
    __slots__ = ("vm", "incarnation")
    VM_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    vm: str
    incarnation: int
    def __init__(self, vm: _Optional[str] = ..., incarnation: _Optional[int] = ...) -> None: ...

class PauseMachineResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeMachineRequest(_message.Message):
    __slots__ = ("vm", "incarnation")
    VM_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    vm: str
    incarnation: int
    def __init__(self, vm: _Optional[str] = ..., incarnation: _Optional[int] = ...) -> None: ...

class ResumeMachineResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResetMachineRequest(_message.Message):
    __slots__ = ("vm", "incarnation")
    VM_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    vm: str
    incarnation: int
    def __init__(self, vm: _Optional[str] = ..., incarnation: _Optional[int] = ...) -> None: ...

class ResetMachineResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SignalSystemResetRequest(_message.Message):
    __slots__ = ("vm", "incarnation", "vcpu")
    VM_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    VCPU_FIELD_NUMBER: _ClassVar[int]
    vm: str
    incarnation: int
    vcpu: int
    def __init__(self, vm: _Optional[str] = ..., incarnation: _Optional[int] = ..., vcpu: _Optional[int] = ...) -> None: ...

class SignalSystemResetResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StopMachineRequest(_message.Message):
    __slots__ = ("vm", "incarnation")
    VM_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    vm: str
    incarnation: int
    def __init__(self, vm: _Optional[str] = ..., incarnation: _Optional[int] = ...) -> None: ...

class StopMachineResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SaveMachineRequest(_message.Message):
    __slots__ = ("vm", "incarnation", "stop")
    VM_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    vm: str
    incarnation: int
    stop: bool
    def __init__(self, vm: _Optional[str] = ..., incarnation: _Optional[int] = ..., stop: _Optional[bool] = ...) -> None: ...

class SaveMachineResponse(_message.Message):
    __slots__ = ("data", "saved")
    DATA_FIELD_NUMBER: _ClassVar[int]
    SAVED_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    saved: MachineSaved
    def __init__(self, data: _Optional[bytes] = ..., saved: _Optional[_Union[MachineSaved, _Mapping]] = ...) -> None: ...

class MachineSaved(_message.Message):
    __slots__ = ("paused", "ram_bytes")
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    RAM_BYTES_FIELD_NUMBER: _ClassVar[int]
    paused: _duration_pb2.Duration
    ram_bytes: int
    def __init__(self, paused: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., ram_bytes: _Optional[int] = ...) -> None: ...

class RestoreMachineRequest(_message.Message):
    __slots__ = ("options", "data", "complete", "go")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    GO_FIELD_NUMBER: _ClassVar[int]
    options: RestoreOptions
    data: bytes
    complete: RestoreComplete
    go: RestoreGo
    def __init__(self, options: _Optional[_Union[RestoreOptions, _Mapping]] = ..., data: _Optional[bytes] = ..., complete: _Optional[_Union[RestoreComplete, _Mapping]] = ..., go: _Optional[_Union[RestoreGo, _Mapping]] = ...) -> None: ...

class RestoreOptions(_message.Message):
    __slots__ = ("backends", "moved", "vm", "file")
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    MOVED_FIELD_NUMBER: _ClassVar[int]
    VM_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    backends: _containers.RepeatedCompositeFieldContainer[BackendAddress]
    moved: bool
    vm: str
    file: str
    def __init__(self, backends: _Optional[_Iterable[_Union[BackendAddress, _Mapping]]] = ..., moved: _Optional[bool] = ..., vm: _Optional[str] = ..., file: _Optional[str] = ...) -> None: ...

class RestoreComplete(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RestoreGo(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RestoreMachineResponse(_message.Message):
    __slots__ = ("ready", "running")
    READY_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    ready: RestoreReady
    running: RestoreRunning
    def __init__(self, ready: _Optional[_Union[RestoreReady, _Mapping]] = ..., running: _Optional[_Union[RestoreRunning, _Mapping]] = ...) -> None: ...

class RestoreReady(_message.Message):
    __slots__ = ("vm", "incarnation")
    VM_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    vm: str
    incarnation: int
    def __init__(self, vm: _Optional[str] = ..., incarnation: _Optional[int] = ...) -> None: ...

class RestoreRunning(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MigrateMachineRequest(_message.Message):
    __slots__ = ("vm", "incarnation", "target", "backends")
    VM_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    vm: str
    incarnation: int
    target: str
    backends: _containers.RepeatedCompositeFieldContainer[BackendAddress]
    def __init__(self, vm: _Optional[str] = ..., incarnation: _Optional[int] = ..., target: _Optional[str] = ..., backends: _Optional[_Iterable[_Union[BackendAddress, _Mapping]]] = ...) -> None: ...

class MigrateMachineResponse(_message.Message):
    __slots__ = ("downtime", "sent_bytes")
    DOWNTIME_FIELD_NUMBER: _ClassVar[int]
    SENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    downtime: _duration_pb2.Duration
    sent_bytes: int
    def __init__(self, downtime: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., sent_bytes: _Optional[int] = ...) -> None: ...

class ListMachinesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListMachinesResponse(_message.Message):
    __slots__ = ("machines", "next_page_token")
    MACHINES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    machines: _containers.RepeatedCompositeFieldContainer[Machine]
    next_page_token: str
    def __init__(self, machines: _Optional[_Iterable[_Union[Machine, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class Machine(_message.Message):
    __slots__ = ("vm", "incarnation", "state")
    VM_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    vm: str
    incarnation: int
    state: MachineState
    def __init__(self, vm: _Optional[str] = ..., incarnation: _Optional[int] = ..., state: _Optional[_Union[MachineState, str]] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ("vm", "incarnation")
    VM_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    vm: str
    incarnation: int
    def __init__(self, vm: _Optional[str] = ..., incarnation: _Optional[int] = ...) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("vm", "incarnation", "state", "detail", "uptime", "backends", "calls", "waiting", "resets", "latency_bounds", "ram_bytes", "activity", "interrupts", "recording_failure")
    VM_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    UPTIME_FIELD_NUMBER: _ClassVar[int]
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    RESETS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_BOUNDS_FIELD_NUMBER: _ClassVar[int]
    RAM_BYTES_FIELD_NUMBER: _ClassVar[int]
    ACTIVITY_FIELD_NUMBER: _ClassVar[int]
    INTERRUPTS_FIELD_NUMBER: _ClassVar[int]
    RECORDING_FAILURE_FIELD_NUMBER: _ClassVar[int]
    vm: str
    incarnation: int
    state: MachineState
    detail: str
    uptime: _duration_pb2.Duration
    backends: _containers.RepeatedCompositeFieldContainer[BackendStatus]
    calls: _containers.RepeatedCompositeFieldContainer[CallCount]
    waiting: _duration_pb2.Duration
    resets: int
    latency_bounds: _containers.RepeatedScalarFieldContainer[float]
    ram_bytes: int
    activity: VcpuActivity
    interrupts: _containers.RepeatedCompositeFieldContainer[InterruptCount]
    recording_failure: str
    def __init__(self, vm: _Optional[str] = ..., incarnation: _Optional[int] = ..., state: _Optional[_Union[MachineState, str]] = ..., detail: _Optional[str] = ..., uptime: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., backends: _Optional[_Iterable[_Union[BackendStatus, _Mapping]]] = ..., calls: _Optional[_Iterable[_Union[CallCount, _Mapping]]] = ..., waiting: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., resets: _Optional[int] = ..., latency_bounds: _Optional[_Iterable[float]] = ..., ram_bytes: _Optional[int] = ..., activity: _Optional[_Union[VcpuActivity, _Mapping]] = ..., interrupts: _Optional[_Iterable[_Union[InterruptCount, _Mapping]]] = ..., recording_failure: _Optional[str] = ...) -> None: ...

class BackendStatus(_message.Message):
    __slots__ = ("name", "address", "attached", "reconnects", "ram_mapped", "posted_calls", "posted_bytes", "credit_stalls")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_FIELD_NUMBER: _ClassVar[int]
    RECONNECTS_FIELD_NUMBER: _ClassVar[int]
    RAM_MAPPED_FIELD_NUMBER: _ClassVar[int]
    POSTED_CALLS_FIELD_NUMBER: _ClassVar[int]
    POSTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    CREDIT_STALLS_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    attached: bool
    reconnects: int
    ram_mapped: bool
    posted_calls: int
    posted_bytes: int
    credit_stalls: int
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., attached: _Optional[bool] = ..., reconnects: _Optional[int] = ..., ram_mapped: _Optional[bool] = ..., posted_calls: _Optional[int] = ..., posted_bytes: _Optional[int] = ..., credit_stalls: _Optional[int] = ...) -> None: ...

class CallCount(_message.Message):
    __slots__ = ("name", "owner", "count", "seconds", "latencies")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    LATENCIES_FIELD_NUMBER: _ClassVar[int]
    name: str
    owner: str
    count: int
    seconds: float
    latencies: _containers.RepeatedCompositeFieldContainer[LatencyHistogram]
    def __init__(self, name: _Optional[str] = ..., owner: _Optional[str] = ..., count: _Optional[int] = ..., seconds: _Optional[float] = ..., latencies: _Optional[_Iterable[_Union[LatencyHistogram, _Mapping]]] = ...) -> None: ...

class LatencyHistogram(_message.Message):
    __slots__ = ("result", "counts", "seconds")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    result: ResultClass
    counts: _containers.RepeatedScalarFieldContainer[int]
    seconds: float
    def __init__(self, result: _Optional[_Union[ResultClass, str]] = ..., counts: _Optional[_Iterable[int]] = ..., seconds: _Optional[float] = ...) -> None: ...

class VcpuActivity(_message.Message):
    __slots__ = ("cpu", "idle", "priority_hints", "decrementer_interrupts", "exceptions")
    CPU_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_HINTS_FIELD_NUMBER: _ClassVar[int]
    DECREMENTER_INTERRUPTS_FIELD_NUMBER: _ClassVar[int]
    EXCEPTIONS_FIELD_NUMBER: _ClassVar[int]
    cpu: _duration_pb2.Duration
    idle: _duration_pb2.Duration
    priority_hints: int
    decrementer_interrupts: int
    exceptions: _containers.RepeatedCompositeFieldContainer[ExceptionCount]
    def __init__(self, cpu: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., idle: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., priority_hints: _Optional[int] = ..., decrementer_interrupts: _Optional[int] = ..., exceptions: _Optional[_Iterable[_Union[ExceptionCount, _Mapping]]] = ...) -> None: ...

class ExceptionCount(_message.Message):
    __slots__ = ("name", "count")
    NAME_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    name: str
    count: int
    def __init__(self, name: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class InterruptCount(_message.Message):
    __slots__ = ("source", "count")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    source: int
    count: int
    def __init__(self, source: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class WatchEventsRequest(_message.Message):
    __slots__ = ("vm", "incarnation")
    VM_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    vm: str
    incarnation: int
    def __init__(self, vm: _Optional[str] = ..., incarnation: _Optional[int] = ...) -> None: ...

class WatchEventsResponse(_message.Message):
    __slots__ = ("incarnation", "state", "backend", "progress")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    incarnation: int
    state: StateChanged
    backend: BackendStatus
    progress: Progress
    def __init__(self, incarnation: _Optional[int] = ..., state: _Optional[_Union[StateChanged, _Mapping]] = ..., backend: _Optional[_Union[BackendStatus, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ...) -> None: ...

class StateChanged(_message.Message):
    __slots__ = ("state", "detail")
    STATE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    state: MachineState
    detail: str
    def __init__(self, state: _Optional[_Union[MachineState, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("step",)
    STEP_FIELD_NUMBER: _ClassVar[int]
    step: str
    def __init__(self, step: _Optional[str] = ...) -> None: ...

class WatchTrapsRequest(_message.Message):
    __slots__ = ("vm", "incarnation", "calls", "owners", "vcpus", "failed", "slower_than", "local")
    VM_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    OWNERS_FIELD_NUMBER: _ClassVar[int]
    VCPUS_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    SLOWER_THAN_FIELD_NUMBER: _ClassVar[int]
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    vm: str
    incarnation: int
    calls: _containers.RepeatedScalarFieldContainer[str]
    owners: _containers.RepeatedScalarFieldContainer[str]
    vcpus: _containers.RepeatedScalarFieldContainer[int]
    failed: bool
    slower_than: _duration_pb2.Duration
    local: bool
    def __init__(self, vm: _Optional[str] = ..., incarnation: _Optional[int] = ..., calls: _Optional[_Iterable[str]] = ..., owners: _Optional[_Iterable[str]] = ..., vcpus: _Optional[_Iterable[int]] = ..., failed: _Optional[bool] = ..., slower_than: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., local: _Optional[bool] = ...) -> None: ...

class WatchTrapsResponse(_message.Message):
    __slots__ = ("traps", "missed")
    TRAPS_FIELD_NUMBER: _ClassVar[int]
    MISSED_FIELD_NUMBER: _ClassVar[int]
    traps: _containers.RepeatedCompositeFieldContainer[WatchedTrap]
    missed: int
    def __init__(self, traps: _Optional[_Iterable[_Union[WatchedTrap, _Mapping]]] = ..., missed: _Optional[int] = ...) -> None: ...

class WatchedTrap(_message.Message):
    __slots__ = ("time_ns", "duration_ns", "vcpu", "kind", "name", "owner", "posted", "arguments", "strings", "result", "returns", "failed")
    class StringsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: bytes
        def __init__(self, key: _Optional[int] = ..., value: _Optional[bytes] = ...) -> None: ...
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    DURATION_NS_FIELD_NUMBER: _ClassVar[int]
    VCPU_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    POSTED_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    STRINGS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    RETURNS_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    time_ns: int
    duration_ns: int
    vcpu: int
    kind: WatchedKind
    name: str
    owner: str
    posted: bool
    arguments: _containers.RepeatedScalarFieldContainer[int]
    strings: _containers.ScalarMap[int, bytes]
    result: int
    returns: _containers.RepeatedScalarFieldContainer[int]
    failed: bool
    def __init__(self, time_ns: _Optional[int] = ..., duration_ns: _Optional[int] = ..., vcpu: _Optional[int] = ..., kind: _Optional[_Union[WatchedKind, str]] = ..., name: _Optional[str] = ..., owner: _Optional[str] = ..., posted: _Optional[bool] = ..., arguments: _Optional[_Iterable[int]] = ..., strings: _Optional[_Mapping[int, bytes]] = ..., result: _Optional[int] = ..., returns: _Optional[_Iterable[int]] = ..., failed: _Optional[bool] = ...) -> None: ...
