from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_CPU: _ClassVar[Role]
    ROLE_BACKEND: _ClassVar[Role]
    ROLE_CONSOLE_READ: _ClassVar[Role]
    ROLE_CONSOLE_WRITE: _ClassVar[Role]
    ROLE_OPERATOR: _ClassVar[Role]
ROLE_UNSPECIFIED: Role
ROLE_CPU: Role
ROLE_BACKEND: Role
ROLE_CONSOLE_READ: Role
ROLE_CONSOLE_WRITE: Role
ROLE_OPERATOR: Role
ACCESS_FIELD_NUMBER: _ClassVar[int]
access: _descriptor.FieldDescriptor

class Access(_message.Message):
    __slots__ = ("roles", "field", "listed", "none", "restrictions")
    ROLES_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    LISTED_FIELD_NUMBER: _ClassVar[int]
    NONE_FIELD_NUMBER: _ClassVar[int]
    RESTRICTIONS_FIELD_NUMBER: _ClassVar[int]
    roles: _containers.RepeatedScalarFieldContainer[Role]
    field: str
    listed: str
    none: bool
    restrictions: _containers.RepeatedCompositeFieldContainer[Restriction]
    def __init__(self, roles: _Optional[_Iterable[_Union[Role, str]]] = ..., field: _Optional[str] = ..., listed: _Optional[str] = ..., none: _Optional[bool] = ..., restrictions: _Optional[_Iterable[_Union[Restriction, _Mapping]]] = ...) -> None: ...

class Restriction(_message.Message):
    __slots__ = ("field", "roles")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    field: str
    roles: _containers.RepeatedScalarFieldContainer[Role]
    def __init__(self, field: _Optional[str] = ..., roles: _Optional[_Iterable[_Union[Role, str]]] = ...) -> None: ...
