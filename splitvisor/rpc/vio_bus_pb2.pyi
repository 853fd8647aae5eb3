from splitvisor.rpc import trap_pb2 as _trap_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListBusesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListBusesResponse(_message.Message):
    __slots__ = ("vms",)
    VMS_FIELD_NUMBER: _ClassVar[int]
    vms: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, vms: _Optional[_Iterable[str]] = ...) -> None: ...

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
    __slots__ = ("kind", "unit_address", "interrupt_source", "signal_state", "liobn", "node")
    KIND_FIELD_NUMBER: _ClassVar[int]
    UNIT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    INTERRUPT_SOURCE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_STATE_FIELD_NUMBER: _ClassVar[int]
    LIOBN_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    unit_address: int
    interrupt_source: int
    signal_state: int
    liobn: int
    node: _trap_pb2.TreeNode
    def __init__(self, kind: _Optional[str] = ..., unit_address: _Optional[int] = ..., interrupt_source: _Optional[int] = ..., signal_state: _Optional[int] = ..., liobn: _Optional[int] = ..., node: _Optional[_Union[_trap_pb2.TreeNode, _Mapping]] = ...) -> None: ...
