import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from splitvisor.rpc import access_pb2 as _access_pb2
from splitvisor.rpc import device_tree_pb2 as _device_tree_pb2
from splitvisor.rpc import trap_pb2 as _trap_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ConnectorState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONNECTOR_STATE_UNSPECIFIED: _ClassVar[ConnectorState]
    CONNECTOR_STATE_UNUSABLE: _ClassVar[ConnectorState]
    CONNECTOR_STATE_ALLOCATED: _ClassVar[ConnectorState]
    CONNECTOR_STATE_UNISOLATED: _ClassVar[ConnectorState]
    CONNECTOR_STATE_CONFIGURED: _ClassVar[ConnectorState]
CONNECTOR_STATE_UNSPECIFIED: ConnectorState
CONNECTOR_STATE_UNUSABLE: ConnectorState
CONNECTOR_STATE_ALLOCATED: ConnectorState
CONNECTOR_STATE_UNISOLATED: ConnectorState
CONNECTOR_STATE_CONFIGURED: ConnectorState

class ListBusesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListBusesResponse(_message.Message):
    __slots__ = ("buses", "next_page_token")
    BUSES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    buses: _containers.RepeatedCompositeFieldContainer[Bus]
    next_page_token: str
    def __init__(self, buses: _Optional[_Iterable[_Union[Bus, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class Bus(_message.Message):
    __slots__ = ("vm",)
    VM_FIELD_NUMBER: _ClassVar[int]
    vm: str
    def __init__(self, vm: _Optional[str] = ...) -> None: ...

class DescribeBusRequest(_message.Message):
    __slots__ = ("vm",)
    VM_FIELD_NUMBER: _ClassVar[int]
    vm: str
    def __init__(self, vm: _Optional[str] = ...) -> None: ...

class DescribeBusResponse(_message.Message):
    __slots__ = ("devices",)
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    devices: _containers.RepeatedCompositeFieldContainer[VioDevice]
    def __init__(self, devices: _Optional[_Iterable[_Union[VioDevice, _Mapping]]] = ...) -> None: ...

class VioDevice(_message.Message):
    __slots__ = ("kind", "unit_address", "interrupt_source", "signal_state", "liobn", "node", "connector", "disks", "network")
    KIND_FIELD_NUMBER: _ClassVar[int]
    UNIT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    INTERRUPT_SOURCE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_STATE_FIELD_NUMBER: _ClassVar[int]
    LIOBN_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    CONNECTOR_FIELD_NUMBER: _ClassVar[int]
    DISKS_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    kind: str
    unit_address: int
    interrupt_source: int
    signal_state: int
    liobn: int
    node: _trap_pb2.TreeNode
    connector: Connector
    disks: _containers.RepeatedCompositeFieldContainer[Disk]
    network: Network
    def __init__(self, kind: _Optional[str] = ..., unit_address: _Optional[int] = ..., interrupt_source: _Optional[int] = ..., signal_state: _Optional[int] = ..., liobn: _Optional[int] = ..., node: _Optional[_Union[_trap_pb2.TreeNode, _Mapping]] = ..., connector: _Optional[_Union[Connector, _Mapping]] = ..., disks: _Optional[_Iterable[_Union[Disk, _Mapping]]] = ..., network: _Optional[_Union[Network, _Mapping]] = ...) -> None: ...

class Disk(_message.Message):
    __slots__ = ("name", "target", "place", "serial", "size", "read_only", "drive", "counters")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    DRIVE_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    target: int
    place: str
    serial: str
    size: int
    read_only: bool
    drive: CdDrive
    counters: DiskCounters
    def __init__(self, name: _Optional[str] = ..., target: _Optional[int] = ..., place: _Optional[str] = ..., serial: _Optional[str] = ..., size: _Optional[int] = ..., read_only: _Optional[bool] = ..., drive: _Optional[_Union[CdDrive, _Mapping]] = ..., counters: _Optional[_Union[DiskCounters, _Mapping]] = ...) -> None: ...

class CdDrive(_message.Message):
    __slots__ = ("tray_open", "locked")
    TRAY_OPEN_FIELD_NUMBER: _ClassVar[int]
    LOCKED_FIELD_NUMBER: _ClassVar[int]
    tray_open: bool
    locked: bool
    def __init__(self, tray_open: _Optional[bool] = ..., locked: _Optional[bool] = ...) -> None: ...

class DiskCounters(_message.Message):
    __slots__ = ("reads", "writes", "flushes", "discards", "errors", "depth", "deepest")
    READS_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    FLUSHES_FIELD_NUMBER: _ClassVar[int]
    DISCARDS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    DEEPEST_FIELD_NUMBER: _ClassVar[int]
    reads: DiskOperations
    writes: DiskOperations
    flushes: DiskOperations
    discards: DiskOperations
    errors: int
    depth: int
    deepest: int
    def __init__(self, reads: _Optional[_Union[DiskOperations, _Mapping]] = ..., writes: _Optional[_Union[DiskOperations, _Mapping]] = ..., flushes: _Optional[_Union[DiskOperations, _Mapping]] = ..., discards: _Optional[_Union[DiskOperations, _Mapping]] = ..., errors: _Optional[int] = ..., depth: _Optional[int] = ..., deepest: _Optional[int] = ...) -> None: ...

class DiskOperations(_message.Message):
    __slots__ = ("count", "bytes", "time")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    count: int
    bytes: int
    time: _duration_pb2.Duration
    def __init__(self, count: _Optional[int] = ..., bytes: _Optional[int] = ..., time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Network(_message.Message):
    __slots__ = ("place", "mac", "is_open", "sent", "received")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    MAC_FIELD_NUMBER: _ClassVar[int]
    IS_OPEN_FIELD_NUMBER: _ClassVar[int]
    SENT_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    place: str
    mac: bytes
    is_open: bool
    sent: FrameCounters
    received: FrameCounters
    def __init__(self, place: _Optional[str] = ..., mac: _Optional[bytes] = ..., is_open: _Optional[bool] = ..., sent: _Optional[_Union[FrameCounters, _Mapping]] = ..., received: _Optional[_Union[FrameCounters, _Mapping]] = ...) -> None: ...

class FrameCounters(_message.Message):
    __slots__ = ("frames", "bytes", "dropped")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    frames: int
    bytes: int
    dropped: int
    def __init__(self, frames: _Optional[int] = ..., bytes: _Optional[int] = ..., dropped: _Optional[int] = ...) -> None: ...

class Connector(_message.Message):
    __slots__ = ("index", "name", "state", "removal_asked")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REMOVAL_ASKED_FIELD_NUMBER: _ClassVar[int]
    index: int
    name: str
    state: ConnectorState
    removal_asked: bool
    def __init__(self, index: _Optional[int] = ..., name: _Optional[str] = ..., state: _Optional[_Union[ConnectorState, str]] = ..., removal_asked: _Optional[bool] = ...) -> None: ...

class AddDeviceRequest(_message.Message):
    __slots__ = ("vm", "device", "wait")
    VM_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    vm: str
    device: _trap_pb2.DeviceSpec
    wait: _duration_pb2.Duration
    def __init__(self, vm: _Optional[str] = ..., device: _Optional[_Union[_trap_pb2.DeviceSpec, _Mapping]] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class AddDeviceResponse(_message.Message):
    __slots__ = ("device", "interrupt_parent", "interrupt_parent_source")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    INTERRUPT_PARENT_FIELD_NUMBER: _ClassVar[int]
    INTERRUPT_PARENT_SOURCE_FIELD_NUMBER: _ClassVar[int]
    device: VioDevice
    interrupt_parent: int
    interrupt_parent_source: _device_tree_pb2.InterruptParentSource
    def __init__(self, device: _Optional[_Union[VioDevice, _Mapping]] = ..., interrupt_parent: _Optional[int] = ..., interrupt_parent_source: _Optional[_Union[_device_tree_pb2.InterruptParentSource, str]] = ...) -> None: ...

class RemoveDeviceRequest(_message.Message):
    __slots__ = ("vm", "unit_address", "wait")
    VM_FIELD_NUMBER: _ClassVar[int]
    UNIT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    vm: str
    unit_address: int
    wait: _duration_pb2.Duration
    def __init__(self, vm: _Optional[str] = ..., unit_address: _Optional[int] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class RemoveDeviceResponse(_message.Message):
    __slots__ = ("removed", "connector")
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    CONNECTOR_FIELD_NUMBER: _ClassVar[int]
    removed: bool
    connector: Connector
    def __init__(self, removed: _Optional[bool] = ..., connector: _Optional[_Union[Connector, _Mapping]] = ...) -> None: ...

class ChangeMediumRequest(_message.Message):
    __slots__ = ("vm", "unit_address", "drive", "medium", "force")
    VM_FIELD_NUMBER: _ClassVar[int]
    UNIT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DRIVE_FIELD_NUMBER: _ClassVar[int]
    MEDIUM_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    vm: str
    unit_address: int
    drive: str
    medium: str
    force: bool
    def __init__(self, vm: _Optional[str] = ..., unit_address: _Optional[int] = ..., drive: _Optional[str] = ..., medium: _Optional[str] = ..., force: _Optional[bool] = ...) -> None: ...

class ChangeMediumResponse(_message.Message):
    __slots__ = ("device",)
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    device: VioDevice
    def __init__(self, device: _Optional[_Union[VioDevice, _Mapping]] = ...) -> None: ...
