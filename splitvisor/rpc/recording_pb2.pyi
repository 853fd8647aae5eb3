from splitvisor.rpc import device_tree_pb2 as _device_tree_pb2
from splitvisor.rpc import machine_pb2 as _machine_pb2
from splitvisor.rpc import trap_pb2 as _trap_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Record(_message.Message):
    __slots__ = ("time_ns", "link", "start", "request", "response", "seed_tree", "end")
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    SEED_TREE_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    time_ns: int
    link: int
    start: RecordingStart
    request: _trap_pb2.AttachRequest
    response: _trap_pb2.AttachResponse
    seed_tree: SeedTree
    end: RecordingEnd
    def __init__(self, time_ns: _Optional[int] = ..., link: _Optional[int] = ..., start: _Optional[_Union[RecordingStart, _Mapping]] = ..., request: _Optional[_Union[_trap_pb2.AttachRequest, _Mapping]] = ..., response: _Optional[_Union[_trap_pb2.AttachResponse, _Mapping]] = ..., seed_tree: _Optional[_Union[SeedTree, _Mapping]] = ..., end: _Optional[_Union[RecordingEnd, _Mapping]] = ...) -> None: ...

class RecordingStart(_message.Message):
    __slots__ = ("config", "began_ns", "splitvisor_version", "backends")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    BEGAN_NS_FIELD_NUMBER: _ClassVar[int]
    SPLITVISOR_VERSION_FIELD_NUMBER: _ClassVar[int]
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    config: _machine_pb2.MachineConfig
    began_ns: int
    splitvisor_version: str
    backends: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, config: _Optional[_Union[_machine_pb2.MachineConfig, _Mapping]] = ..., began_ns: _Optional[int] = ..., splitvisor_version: _Optional[str] = ..., backends: _Optional[_Iterable[str]] = ...) -> None: ...

class SeedTree(_message.Message):
    __slots__ = ("request", "response")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    request: _device_tree_pb2.BuildTreeRequest
    response: _device_tree_pb2.BuildTreeResponse
    def __init__(self, request: _Optional[_Union[_device_tree_pb2.BuildTreeRequest, _Mapping]] = ..., response: _Optional[_Union[_device_tree_pb2.BuildTreeResponse, _Mapping]] = ...) -> None: ...

class RecordingEnd(_message.Message):
    __slots__ = ("reason", "calls", "waits")
    REASON_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    WAITS_FIELD_NUMBER: _ClassVar[int]
    reason: str
    calls: _containers.RepeatedCompositeFieldContainer[_machine_pb2.CallCount]
    waits: int
    def __init__(self, reason: _Optional[str] = ..., calls: _Optional[_Iterable[_Union[_machine_pb2.CallCount, _Mapping]]] = ..., waits: _Optional[int] = ...) -> None: ...
