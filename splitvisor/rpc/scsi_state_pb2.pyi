from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ScsiTargetState(_message.Message):
    __slots__ = ("units",)
    UNITS_FIELD_NUMBER: _ClassVar[int]
    units: _containers.RepeatedCompositeFieldContainer[ScsiUnitState]
    def __init__(self, units: _Optional[_Iterable[_Union[ScsiUnitState, _Mapping]]] = ...) -> None: ...

class ScsiUnitState(_message.Message):
    __slots__ = ("number", "mode_pages", "reserved_by", "registrations", "holder", "reservation_type", "generation", "attentions", "stopped", "size", "tray_open", "locks", "media_event")
    class ModePagesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: bytes
        def __init__(self, key: _Optional[int] = ..., value: _Optional[bytes] = ...) -> None: ...
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    MODE_PAGES_FIELD_NUMBER: _ClassVar[int]
    RESERVED_BY_FIELD_NUMBER: _ClassVar[int]
    REGISTRATIONS_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    RESERVATION_TYPE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ATTENTIONS_FIELD_NUMBER: _ClassVar[int]
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    TRAY_OPEN_FIELD_NUMBER: _ClassVar[int]
    LOCKS_FIELD_NUMBER: _ClassVar[int]
    MEDIA_EVENT_FIELD_NUMBER: _ClassVar[int]
    number: int
    mode_pages: _containers.ScalarMap[int, bytes]
    reserved_by: str
    registrations: _containers.RepeatedCompositeFieldContainer[ScsiRegistration]
    holder: str
    reservation_type: int
    generation: int
    attentions: _containers.RepeatedCompositeFieldContainer[ScsiAttentions]
    stopped: bool
    size: int
    tray_open: bool
    locks: _containers.RepeatedScalarFieldContainer[str]
    media_event: int
    def __init__(self, number: _Optional[int] = ..., mode_pages: _Optional[_Mapping[int, bytes]] = ..., reserved_by: _Optional[str] = ..., registrations: _Optional[_Iterable[_Union[ScsiRegistration, _Mapping]]] = ..., holder: _Optional[str] = ..., reservation_type: _Optional[int] = ..., generation: _Optional[int] = ..., attentions: _Optional[_Iterable[_Union[ScsiAttentions, _Mapping]]] = ..., stopped: _Optional[bool] = ..., size: _Optional[int] = ..., tray_open: _Optional[bool] = ..., locks: _Optional[_Iterable[str]] = ..., media_event: _Optional[int] = ...) -> None: ...

class ScsiRegistration(_message.Message):
    __slots__ = ("initiator", "key", "transport_id")
    INITIATOR_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_ID_FIELD_NUMBER: _ClassVar[int]
    initiator: str
    key: int
    transport_id: bytes
    def __init__(self, initiator: _Optional[str] = ..., key: _Optional[int] = ..., transport_id: _Optional[bytes] = ...) -> None: ...

class ScsiAttentions(_message.Message):
    __slots__ = ("initiator", "pending")
    INITIATOR_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    initiator: str
    pending: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, initiator: _Optional[str] = ..., pending: _Optional[_Iterable[int]] = ...) -> None: ...
