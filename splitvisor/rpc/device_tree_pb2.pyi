import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from splitvisor.rpc import access_pb2 as _access_pb2
from splitvisor.rpc import trap_pb2 as _trap_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TreeOrigin(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TREE_ORIGIN_UNSPECIFIED: _ClassVar[TreeOrigin]
    TREE_ORIGIN_SEED: _ClassVar[TreeOrigin]
    TREE_ORIGIN_CAS: _ClassVar[TreeOrigin]
    TREE_ORIGIN_QUIESCE: _ClassVar[TreeOrigin]
    TREE_ORIGIN_UPDATE_DT: _ClassVar[TreeOrigin]
    TREE_ORIGIN_HOTPLUG: _ClassVar[TreeOrigin]
    TREE_ORIGIN_RESTORE: _ClassVar[TreeOrigin]

class InterruptParentSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INTERRUPT_PARENT_SOURCE_UNSPECIFIED: _ClassVar[InterruptParentSource]
    INTERRUPT_PARENT_SOURCE_STORED_TREE: _ClassVar[InterruptParentSource]
    INTERRUPT_PARENT_SOURCE_FALLBACK: _ClassVar[InterruptParentSource]
TREE_ORIGIN_UNSPECIFIED: TreeOrigin
TREE_ORIGIN_SEED: TreeOrigin
TREE_ORIGIN_CAS: TreeOrigin
TREE_ORIGIN_QUIESCE: TreeOrigin
TREE_ORIGIN_UPDATE_DT: TreeOrigin
TREE_ORIGIN_HOTPLUG: TreeOrigin
TREE_ORIGIN_RESTORE: TreeOrigin
INTERRUPT_PARENT_SOURCE_UNSPECIFIED: InterruptParentSource
INTERRUPT_PARENT_SOURCE_STORED_TREE: InterruptParentSource
INTERRUPT_PARENT_SOURCE_FALLBACK: InterruptParentSource

class BuildTreeRequest(_message.Message):
    __slots__ = ("vm", "ram_bytes", "vcpus", "hash_table_shift", "bootargs", "initrd", "kernel", "kernel_little_endian", "rtas_calls", "hypercalls", "nodes", "uuid", "boot", "spin_table")
    VM_FIELD_NUMBER: _ClassVar[int]
    RAM_BYTES_FIELD_NUMBER: _ClassVar[int]
    VCPUS_FIELD_NUMBER: _ClassVar[int]
    HASH_TABLE_SHIFT_FIELD_NUMBER: _ClassVar[int]
    BOOTARGS_FIELD_NUMBER: _ClassVar[int]
    INITRD_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    KERNEL_LITTLE_ENDIAN_FIELD_NUMBER: _ClassVar[int]
    RTAS_CALLS_FIELD_NUMBER: _ClassVar[int]
    HYPERCALLS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    UUID_FIELD_NUMBER: _ClassVar[int]
    BOOT_FIELD_NUMBER: _ClassVar[int]
    SPIN_TABLE_FIELD_NUMBER: _ClassVar[int]
    vm: str
    ram_bytes: int
    vcpus: int
    hash_table_shift: int
    bootargs: str
    initrd: _trap_pb2.MemoryRange
    kernel: _trap_pb2.MemoryRange
    kernel_little_endian: bool
    rtas_calls: _containers.RepeatedCompositeFieldContainer[RtasToken]
    hypercalls: _containers.RepeatedScalarFieldContainer[int]
    nodes: _containers.RepeatedCompositeFieldContainer[_trap_pb2.TreeNode]
    uuid: bytes
    boot: _containers.RepeatedScalarFieldContainer[str]
    spin_table: int
    def __init__(self, vm: _Optional[str] = ..., ram_bytes: _Optional[int] = ..., vcpus: _Optional[int] = ..., hash_table_shift: _Optional[int] = ..., bootargs: _Optional[str] = ..., initrd: _Optional[_Union[_trap_pb2.MemoryRange, _Mapping]] = ..., kernel: _Optional[_Union[_trap_pb2.MemoryRange, _Mapping]] = ..., kernel_little_endian: _Optional[bool] = ..., rtas_calls: _Optional[_Iterable[_Union[RtasToken, _Mapping]]] = ..., hypercalls: _Optional[_Iterable[int]] = ..., nodes: _Optional[_Iterable[_Union[_trap_pb2.TreeNode, _Mapping]]] = ..., uuid: _Optional[bytes] = ..., boot: _Optional[_Iterable[str]] = ..., spin_table: _Optional[int] = ...) -> None: ...

class RtasToken(_message.Message):
    __slots__ = ("name", "token")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    token: int
    def __init__(self, name: _Optional[str] = ..., token: _Optional[int] = ...) -> None: ...

class BuildTreeResponse(_message.Message):
    __slots__ = ("revision", "blob")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    revision: int
    blob: bytes
    def __init__(self, revision: _Optional[int] = ..., blob: _Optional[bytes] = ...) -> None: ...

class PutTreeRequest(_message.Message):
    __slots__ = ("vm", "origin", "blob", "expected_revision")
    VM_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    vm: str
    origin: TreeOrigin
    blob: bytes
    expected_revision: int
    def __init__(self, vm: _Optional[str] = ..., origin: _Optional[_Union[TreeOrigin, str]] = ..., blob: _Optional[bytes] = ..., expected_revision: _Optional[int] = ...) -> None: ...

class PutTreeResponse(_message.Message):
    __slots__ = ("revision",)
    REVISION_FIELD_NUMBER: _ClassVar[int]
    revision: int
    def __init__(self, revision: _Optional[int] = ...) -> None: ...

class GetTreeRequest(_message.Message):
    __slots__ = ("vm", "revision")
    VM_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    vm: str
    revision: int
    def __init__(self, vm: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class GetTreeResponse(_message.Message):
    __slots__ = ("revision", "blob")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    revision: TreeRevision
    blob: bytes
    def __init__(self, revision: _Optional[_Union[TreeRevision, _Mapping]] = ..., blob: _Optional[bytes] = ...) -> None: ...

class GetPropertyRequest(_message.Message):
    __slots__ = ("vm", "revision", "path", "name")
    VM_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    vm: str
    revision: int
    path: str
    name: str
    def __init__(self, vm: _Optional[str] = ..., revision: _Optional[int] = ..., path: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class GetPropertyResponse(_message.Message):
    __slots__ = ("revision", "value")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    revision: int
    value: bytes
    def __init__(self, revision: _Optional[int] = ..., value: _Optional[bytes] = ...) -> None: ...

class ListRevisionsRequest(_message.Message):
    __slots__ = ("vm", "page_size", "page_token")
    VM_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    vm: str
    page_size: int
    page_token: str
    def __init__(self, vm: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListRevisionsResponse(_message.Message):
    __slots__ = ("revisions", "next_page_token")
    REVISIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    revisions: _containers.RepeatedCompositeFieldContainer[TreeRevision]
    next_page_token: str
    def __init__(self, revisions: _Optional[_Iterable[_Union[TreeRevision, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchRevisionsRequest(_message.Message):
    __slots__ = ("vm", "after_revision")
    VM_FIELD_NUMBER: _ClassVar[int]
    AFTER_REVISION_FIELD_NUMBER: _ClassVar[int]
    vm: str
    after_revision: int
    def __init__(self, vm: _Optional[str] = ..., after_revision: _Optional[int] = ...) -> None: ...

class WatchRevisionsResponse(_message.Message):
    __slots__ = ("revision",)
    REVISION_FIELD_NUMBER: _ClassVar[int]
    revision: TreeRevision
    def __init__(self, revision: _Optional[_Union[TreeRevision, _Mapping]] = ...) -> None: ...

class TreeRevision(_message.Message):
    __slots__ = ("number", "time", "origin", "sha256", "size")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    number: int
    time: _timestamp_pb2.Timestamp
    origin: TreeOrigin
    sha256: bytes
    size: int
    def __init__(self, number: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., origin: _Optional[_Union[TreeOrigin, str]] = ..., sha256: _Optional[bytes] = ..., size: _Optional[int] = ...) -> None: ...

class LookUpNodeRequest(_message.Message):
    __slots__ = ("vm", "revision", "path", "phandle")
    VM_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    PHANDLE_FIELD_NUMBER: _ClassVar[int]
    vm: str
    revision: int
    path: str
    phandle: int
    def __init__(self, vm: _Optional[str] = ..., revision: _Optional[int] = ..., path: _Optional[str] = ..., phandle: _Optional[int] = ...) -> None: ...

class LookUpNodeResponse(_message.Message):
    __slots__ = ("revision", "node", "phandle", "children")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    PHANDLE_FIELD_NUMBER: _ClassVar[int]
    CHILDREN_FIELD_NUMBER: _ClassVar[int]
    revision: int
    node: _trap_pb2.TreeNode
    phandle: int
    children: _containers.RepeatedCompositeFieldContainer[NodeChild]
    def __init__(self, revision: _Optional[int] = ..., node: _Optional[_Union[_trap_pb2.TreeNode, _Mapping]] = ..., phandle: _Optional[int] = ..., children: _Optional[_Iterable[_Union[NodeChild, _Mapping]]] = ...) -> None: ...

class NodeChild(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetInterruptParentRequest(_message.Message):
    __slots__ = ("vm",)
    VM_FIELD_NUMBER: _ClassVar[int]
    vm: str
    def __init__(self, vm: _Optional[str] = ...) -> None: ...

class GetInterruptParentResponse(_message.Message):
    __slots__ = ("phandle", "source", "revision", "path", "reason")
    PHANDLE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    phandle: int
    source: InterruptParentSource
    revision: int
    path: str
    reason: str
    def __init__(self, phandle: _Optional[int] = ..., source: _Optional[_Union[InterruptParentSource, str]] = ..., revision: _Optional[int] = ..., path: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ChangeNodesRequest(_message.Message):
    __slots__ = ("vm", "remove", "add")
    VM_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    ADD_FIELD_NUMBER: _ClassVar[int]
    vm: str
    remove: _containers.RepeatedScalarFieldContainer[str]
    add: _containers.RepeatedCompositeFieldContainer[_trap_pb2.TreeNode]
    def __init__(self, vm: _Optional[str] = ..., remove: _Optional[_Iterable[str]] = ..., add: _Optional[_Iterable[_Union[_trap_pb2.TreeNode, _Mapping]]] = ...) -> None: ...

class ChangeNodesResponse(_message.Message):
    __slots__ = ("revision",)
    REVISION_FIELD_NUMBER: _ClassVar[int]
    revision: int
    def __init__(self, revision: _Optional[int] = ...) -> None: ...
