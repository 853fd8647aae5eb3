from splitvisor.rpc import access_pb2 as _access_pb2
from splitvisor.rpc import trap_pb2 as _trap_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

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
MACHINE_STATE_UNSPECIFIED: MachineState
MACHINE_STATE_NONE: MachineState
MACHINE_STATE_STARTING: MachineState
MACHINE_STATE_RUNNING: MachineState
MACHINE_STATE_PAUSED: MachineState
MACHINE_STATE_POWERED_OFF: MachineState
MACHINE_STATE_CRASHED: MachineState
MACHINE_STATE_STOPPED: MachineState
MACHINE_STATE_FAILED: MachineState

class MachineConfig(_message.Message):
    __slots__ = ("name", "memory_mib", "vcpus", "kernel", "initrd", "append", "firmware", "devices", "backends", "private_memory", "uuid", "flat_tree")
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
    def __init__(self, name: _Optional[str] = ..., memory_mib: _Optional[int] = ..., vcpus: _Optional[int] = ..., kernel: _Optional[str] = ..., initrd: _Optional[str] = ..., append: _Optional[str] = ..., firmware: _Optional[str] = ..., devices: _Optional[_Iterable[_Union[_trap_pb2.DeviceSpec, _Mapping]]] = ..., backends: _Optional[_Iterable[_Union[BackendAddress, _Mapping]]] = ..., private_memory: _Optional[bool] = ..., uuid: _Optional[str] = ..., flat_tree: _Optional[bool] = ...) -> None: ...

class BackendAddress(_message.Message):
    __slots__ = ("name", "address")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...

class StartMachineRequest(_message.Message):
    __slots__ = ("config",)
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    config: MachineConfig
    def __init__(self, config: _Optional[_Union[MachineConfig, _Mapping]] = ...) -> None: ...

class StartMachineResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PauseMachineRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PauseMachineResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeMachineRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeMachineResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResetMachineRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResetMachineResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StopMachineRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StopMachineResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("vm", "state", "detail", "uptime_seconds", "backends", "calls", "waiting_seconds", "resets")
    VM_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    WAITING_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RESETS_FIELD_NUMBER: _ClassVar[int]
    vm: str
    state: MachineState
    detail: str
    uptime_seconds: float
    backends: _containers.RepeatedCompositeFieldContainer[BackendStatus]
    calls: _containers.RepeatedCompositeFieldContainer[CallCount]
    waiting_seconds: float
    resets: int
    def __init__(self, vm: _Optional[str] = ..., state: _Optional[_Union[MachineState, str]] = ..., detail: _Optional[str] = ..., uptime_seconds: _Optional[float] = ..., backends: _Optional[_Iterable[_Union[BackendStatus, _Mapping]]] = ..., calls: _Optional[_Iterable[_Union[CallCount, _Mapping]]] = ..., waiting_seconds: _Optional[float] = ..., resets: _Optional[int] = ...) -> None: ...

class BackendStatus(_message.Message):
    __slots__ = ("name", "address", "attached", "reconnects", "ram_mapped")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_FIELD_NUMBER: _ClassVar[int]
    RECONNECTS_FIELD_NUMBER: _ClassVar[int]
    RAM_MAPPED_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    attached: bool
    reconnects: int
    ram_mapped: bool
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., attached: _Optional[bool] = ..., reconnects: _Optional[int] = ..., ram_mapped: _Optional[bool] = ...) -> None: ...

class CallCount(_message.Message):
    __slots__ = ("name", "owner", "count", "seconds")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    owner: str
    count: int
    seconds: float
    def __init__(self, name: _Optional[str] = ..., owner: _Optional[str] = ..., count: _Optional[int] = ..., seconds: _Optional[float] = ...) -> None: ...

class WatchEventsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchEventsResponse(_message.Message):
    __slots__ = ("state", "backend", "progress")
    STATE_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    state: StateChanged
    backend: BackendStatus
    progress: Progress
    def __init__(self, state: _Optional[_Union[StateChanged, _Mapping]] = ..., backend: _Optional[_Union[BackendStatus, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ...) -> None: ...

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
