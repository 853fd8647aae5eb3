import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from splitvisor.rpc import access_pb2 as _access_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ConsoleEndReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONSOLE_END_REASON_UNSPECIFIED: _ClassVar[ConsoleEndReason]
    CONSOLE_END_REASON_VM_ENDED: _ClassVar[ConsoleEndReason]
    CONSOLE_END_REASON_TAKEN_OVER: _ClassVar[ConsoleEndReason]
    CONSOLE_END_REASON_SHUTDOWN: _ClassVar[ConsoleEndReason]
CONSOLE_END_REASON_UNSPECIFIED: ConsoleEndReason
CONSOLE_END_REASON_VM_ENDED: ConsoleEndReason
CONSOLE_END_REASON_TAKEN_OVER: ConsoleEndReason
CONSOLE_END_REASON_SHUTDOWN: ConsoleEndReason

class ListConsolesRequest(_message.Message):
    __slots__ = ("vm", "page_size", "page_token")
    VM_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    vm: str
    page_size: int
    page_token: str
    def __init__(self, vm: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListConsolesResponse(_message.Message):
    __slots__ = ("consoles", "next_page_token")
    CONSOLES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    consoles: _containers.RepeatedCompositeFieldContainer[Console]
    next_page_token: str
    def __init__(self, consoles: _Optional[_Iterable[_Union[Console, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class Console(_message.Message):
    __slots__ = ("vm", "unit_address", "output_bytes", "input_bytes", "readers", "writer", "clients", "window_size", "transcript")
    VM_FIELD_NUMBER: _ClassVar[int]
    UNIT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    INPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    READERS_FIELD_NUMBER: _ClassVar[int]
    WRITER_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_SIZE_FIELD_NUMBER: _ClassVar[int]
    TRANSCRIPT_FIELD_NUMBER: _ClassVar[int]
    vm: str
    unit_address: int
    output_bytes: int
    input_bytes: int
    readers: int
    writer: str
    clients: _containers.RepeatedCompositeFieldContainer[ConsoleClient]
    window_size: WindowSize
    transcript: str
    def __init__(self, vm: _Optional[str] = ..., unit_address: _Optional[int] = ..., output_bytes: _Optional[int] = ..., input_bytes: _Optional[int] = ..., readers: _Optional[int] = ..., writer: _Optional[str] = ..., clients: _Optional[_Iterable[_Union[ConsoleClient, _Mapping]]] = ..., window_size: _Optional[_Union[WindowSize, _Mapping]] = ..., transcript: _Optional[str] = ...) -> None: ...

class ConsoleClient(_message.Message):
    __slots__ = ("name", "writer", "attached_seconds", "behind_bytes", "skipped_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WRITER_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    BEHIND_BYTES_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    writer: bool
    attached_seconds: float
    behind_bytes: int
    skipped_bytes: int
    def __init__(self, name: _Optional[str] = ..., writer: _Optional[bool] = ..., attached_seconds: _Optional[float] = ..., behind_bytes: _Optional[int] = ..., skipped_bytes: _Optional[int] = ...) -> None: ...

class AttachConsoleRequest(_message.Message):
    __slots__ = ("open", "input", "window_size")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    WINDOW_SIZE_FIELD_NUMBER: _ClassVar[int]
    open: ConsoleOpen
    input: bytes
    window_size: WindowSize
    def __init__(self, open: _Optional[_Union[ConsoleOpen, _Mapping]] = ..., input: _Optional[bytes] = ..., window_size: _Optional[_Union[WindowSize, _Mapping]] = ...) -> None: ...

class ConsoleOpen(_message.Message):
    __slots__ = ("vm", "unit_address", "writer", "force", "client_name", "wait", "replay", "resume_instance", "resume_position", "discard_input")
    VM_FIELD_NUMBER: _ClassVar[int]
    UNIT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    WRITER_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NAME_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    REPLAY_FIELD_NUMBER: _ClassVar[int]
    RESUME_INSTANCE_FIELD_NUMBER: _ClassVar[int]
    RESUME_POSITION_FIELD_NUMBER: _ClassVar[int]
    DISCARD_INPUT_FIELD_NUMBER: _ClassVar[int]
    vm: str
    unit_address: int
    writer: bool
    force: bool
    client_name: str
    wait: _duration_pb2.Duration
    replay: bool
    resume_instance: int
    resume_position: int
    discard_input: bool
    def __init__(self, vm: _Optional[str] = ..., unit_address: _Optional[int] = ..., writer: _Optional[bool] = ..., force: _Optional[bool] = ..., client_name: _Optional[str] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., replay: _Optional[bool] = ..., resume_instance: _Optional[int] = ..., resume_position: _Optional[int] = ..., discard_input: _Optional[bool] = ...) -> None: ...

class WindowSize(_message.Message):
    __slots__ = ("rows", "columns")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    columns: int
    def __init__(self, rows: _Optional[int] = ..., columns: _Optional[int] = ...) -> None: ...

class AttachConsoleResponse(_message.Message):
    __slots__ = ("opened", "output", "input_accepted", "ended", "skipped")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    INPUT_ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    opened: ConsoleOpened
    output: bytes
    input_accepted: int
    ended: ConsoleEnded
    skipped: int
    def __init__(self, opened: _Optional[_Union[ConsoleOpened, _Mapping]] = ..., output: _Optional[bytes] = ..., input_accepted: _Optional[int] = ..., ended: _Optional[_Union[ConsoleEnded, _Mapping]] = ..., skipped: _Optional[int] = ...) -> None: ...

class ConsoleOpened(_message.Message):
    __slots__ = ("unit_address", "offset", "input_window", "instance", "input_received", "input_discarded")
    UNIT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    INPUT_WINDOW_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    INPUT_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    INPUT_DISCARDED_FIELD_NUMBER: _ClassVar[int]
    unit_address: int
    offset: int
    input_window: int
    instance: int
    input_received: int
    input_discarded: int
    def __init__(self, unit_address: _Optional[int] = ..., offset: _Optional[int] = ..., input_window: _Optional[int] = ..., instance: _Optional[int] = ..., input_received: _Optional[int] = ..., input_discarded: _Optional[int] = ...) -> None: ...

class ConsoleEnded(_message.Message):
    __slots__ = ("reason", "text")
    REASON_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    reason: ConsoleEndReason
    text: str
    def __init__(self, reason: _Optional[_Union[ConsoleEndReason, str]] = ..., text: _Optional[str] = ...) -> None: ...

class ReadTranscriptRequest(_message.Message):
    __slots__ = ("vm", "unit_address", "max_bytes")
    VM_FIELD_NUMBER: _ClassVar[int]
    UNIT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    vm: str
    unit_address: int
    max_bytes: int
    def __init__(self, vm: _Optional[str] = ..., unit_address: _Optional[int] = ..., max_bytes: _Optional[int] = ...) -> None: ...

class ReadTranscriptResponse(_message.Message):
    __slots__ = ("instance", "end_position", "data")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    END_POSITION_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    instance: int
    end_position: int
    data: bytes
    def __init__(self, instance: _Optional[int] = ..., end_position: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...
