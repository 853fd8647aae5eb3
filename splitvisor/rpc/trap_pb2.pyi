from splitvisor.rpc import access_pb2 as _access_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Beginning(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BEGINNING_UNSPECIFIED: _ClassVar[Beginning]
    BEGINNING_RUNNING: _ClassVar[Beginning]
    BEGINNING_STANDING_STILL: _ClassVar[Beginning]
    BEGINNING_RESTORED: _ClassVar[Beginning]
    BEGINNING_MOVED: _ClassVar[Beginning]

class Feature(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FEATURE_UNSPECIFIED: _ClassVar[Feature]
    FEATURE_SAVED_STATE: _ClassVar[Feature]
    FEATURE_SHARED_CALLS: _ClassVar[Feature]
    FEATURE_TRANSPORTS: _ClassVar[Feature]
    FEATURE_POSTED_DOORBELLS: _ClassVar[Feature]
    FEATURE_PAUSES: _ClassVar[Feature]
    FEATURE_POSTED_BUFFERS: _ClassVar[Feature]

class CallKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CALL_KIND_UNSPECIFIED: _ClassVar[CallKind]
    CALL_KIND_HYPERCALL: _ClassVar[CallKind]
    CALL_KIND_RTAS: _ClassVar[CallKind]

class WithoutCredit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WITHOUT_CREDIT_UNSPECIFIED: _ClassVar[WithoutCredit]
    WITHOUT_CREDIT_WAIT: _ClassVar[WithoutCredit]

class MachineActionKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MACHINE_ACTION_KIND_UNSPECIFIED: _ClassVar[MachineActionKind]
    MACHINE_ACTION_KIND_POWER_OFF: _ClassVar[MachineActionKind]
    MACHINE_ACTION_KIND_RESET: _ClassVar[MachineActionKind]
    MACHINE_ACTION_KIND_CRASH: _ClassVar[MachineActionKind]
    MACHINE_ACTION_KIND_PAUSE: _ClassVar[MachineActionKind]
BEGINNING_UNSPECIFIED: Beginning
BEGINNING_RUNNING: Beginning
BEGINNING_STANDING_STILL: Beginning
BEGINNING_RESTORED: Beginning
BEGINNING_MOVED: Beginning
FEATURE_UNSPECIFIED: Feature
FEATURE_SAVED_STATE: Feature
FEATURE_SHARED_CALLS: Feature
FEATURE_TRANSPORTS: Feature
FEATURE_POSTED_DOORBELLS: Feature
FEATURE_PAUSES: Feature
FEATURE_POSTED_BUFFERS: Feature
CALL_KIND_UNSPECIFIED: CallKind
CALL_KIND_HYPERCALL: CallKind
CALL_KIND_RTAS: CallKind
WITHOUT_CREDIT_UNSPECIFIED: WithoutCredit
WITHOUT_CREDIT_WAIT: WithoutCredit
MACHINE_ACTION_KIND_UNSPECIFIED: MachineActionKind
MACHINE_ACTION_KIND_POWER_OFF: MachineActionKind
MACHINE_ACTION_KIND_RESET: MachineActionKind
MACHINE_ACTION_KIND_CRASH: MachineActionKind
MACHINE_ACTION_KIND_PAUSE: MachineActionKind

class AttachRequest(_message.Message):
    __slots__ = ("hello", "trap", "posted", "memory_result", "invoke_result", "reset", "detach", "save_state", "restore_state", "resumed", "move", "continued")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    TRAP_FIELD_NUMBER: _ClassVar[int]
    POSTED_FIELD_NUMBER: _ClassVar[int]
    MEMORY_RESULT_FIELD_NUMBER: _ClassVar[int]
    INVOKE_RESULT_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    DETACH_FIELD_NUMBER: _ClassVar[int]
    SAVE_STATE_FIELD_NUMBER: _ClassVar[int]
    RESTORE_STATE_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    MOVE_FIELD_NUMBER: _ClassVar[int]
    CONTINUED_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    trap: Trap
    posted: PostedBatch
    memory_result: MemoryResult
    invoke_result: InvokeResult
    reset: Reset
    detach: Detach
    save_state: SaveState
    restore_state: RestoreState
    resumed: Resumed
    move: Move
    continued: Continued
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., trap: _Optional[_Union[Trap, _Mapping]] = ..., posted: _Optional[_Union[PostedBatch, _Mapping]] = ..., memory_result: _Optional[_Union[MemoryResult, _Mapping]] = ..., invoke_result: _Optional[_Union[InvokeResult, _Mapping]] = ..., reset: _Optional[_Union[Reset, _Mapping]] = ..., detach: _Optional[_Union[Detach, _Mapping]] = ..., save_state: _Optional[_Union[SaveState, _Mapping]] = ..., restore_state: _Optional[_Union[RestoreState, _Mapping]] = ..., resumed: _Optional[_Union[Resumed, _Mapping]] = ..., move: _Optional[_Union[Move, _Mapping]] = ..., continued: _Optional[_Union[Continued, _Mapping]] = ...) -> None: ...

class AttachResponse(_message.Message):
    __slots__ = ("offer", "reply", "memory_read", "memory_write", "invoke", "acknowledge", "interrupt", "reset_done", "dirty", "action", "inventory", "saved_state", "crq_entries", "move")
    OFFER_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    MEMORY_READ_FIELD_NUMBER: _ClassVar[int]
    MEMORY_WRITE_FIELD_NUMBER: _ClassVar[int]
    INVOKE_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGE_FIELD_NUMBER: _ClassVar[int]
    INTERRUPT_FIELD_NUMBER: _ClassVar[int]
    RESET_DONE_FIELD_NUMBER: _ClassVar[int]
    DIRTY_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    INVENTORY_FIELD_NUMBER: _ClassVar[int]
    SAVED_STATE_FIELD_NUMBER: _ClassVar[int]
    CRQ_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    MOVE_FIELD_NUMBER: _ClassVar[int]
    offer: Offer
    reply: Reply
    memory_read: MemoryRead
    memory_write: MemoryWrite
    invoke: Invoke
    acknowledge: Acknowledge
    interrupt: Interrupt
    reset_done: ResetDone
    dirty: MemoryRange
    action: MachineAction
    inventory: Inventory
    saved_state: SavedState
    crq_entries: CrqEntries
    move: Move
    def __init__(self, offer: _Optional[_Union[Offer, _Mapping]] = ..., reply: _Optional[_Union[Reply, _Mapping]] = ..., memory_read: _Optional[_Union[MemoryRead, _Mapping]] = ..., memory_write: _Optional[_Union[MemoryWrite, _Mapping]] = ..., invoke: _Optional[_Union[Invoke, _Mapping]] = ..., acknowledge: _Optional[_Union[Acknowledge, _Mapping]] = ..., interrupt: _Optional[_Union[Interrupt, _Mapping]] = ..., reset_done: _Optional[_Union[ResetDone, _Mapping]] = ..., dirty: _Optional[_Union[MemoryRange, _Mapping]] = ..., action: _Optional[_Union[MachineAction, _Mapping]] = ..., inventory: _Optional[_Union[Inventory, _Mapping]] = ..., saved_state: _Optional[_Union[SavedState, _Mapping]] = ..., crq_entries: _Optional[_Union[CrqEntries, _Mapping]] = ..., move: _Optional[_Union[Move, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("vm", "incarnation", "vcpus", "ram_bytes", "ram_path", "devices", "positions", "beginning", "features", "slots", "tce_path", "open_queues", "socket_path", "paused")
    VM_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    VCPUS_FIELD_NUMBER: _ClassVar[int]
    RAM_BYTES_FIELD_NUMBER: _ClassVar[int]
    RAM_PATH_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    BEGINNING_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    TCE_PATH_FIELD_NUMBER: _ClassVar[int]
    OPEN_QUEUES_FIELD_NUMBER: _ClassVar[int]
    SOCKET_PATH_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    vm: str
    incarnation: int
    vcpus: int
    ram_bytes: int
    ram_path: str
    devices: _containers.RepeatedCompositeFieldContainer[DeviceSpec]
    positions: _containers.RepeatedCompositeFieldContainer[VcpuPosition]
    beginning: Beginning
    features: _containers.RepeatedScalarFieldContainer[Feature]
    slots: SlotRange
    tce_path: str
    open_queues: _containers.RepeatedCompositeFieldContainer[OpenQueue]
    socket_path: str
    paused: bool
    def __init__(self, vm: _Optional[str] = ..., incarnation: _Optional[int] = ..., vcpus: _Optional[int] = ..., ram_bytes: _Optional[int] = ..., ram_path: _Optional[str] = ..., devices: _Optional[_Iterable[_Union[DeviceSpec, _Mapping]]] = ..., positions: _Optional[_Iterable[_Union[VcpuPosition, _Mapping]]] = ..., beginning: _Optional[_Union[Beginning, str]] = ..., features: _Optional[_Iterable[_Union[Feature, str]]] = ..., slots: _Optional[_Union[SlotRange, _Mapping]] = ..., tce_path: _Optional[str] = ..., open_queues: _Optional[_Iterable[_Union[OpenQueue, _Mapping]]] = ..., socket_path: _Optional[str] = ..., paused: _Optional[bool] = ...) -> None: ...

class Move(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class OpenQueue(_message.Message):
    __slots__ = ("unit_address", "entries")
    UNIT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    unit_address: int
    entries: int
    def __init__(self, unit_address: _Optional[int] = ..., entries: _Optional[int] = ...) -> None: ...

class SlotRange(_message.Message):
    __slots__ = ("first", "count")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    first: int
    count: int
    def __init__(self, first: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class DeviceSpec(_message.Message):
    __slots__ = ("kind", "unit_address", "options", "remembered", "backend")
    class OptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KIND_FIELD_NUMBER: _ClassVar[int]
    UNIT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    REMEMBERED_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    kind: str
    unit_address: int
    options: _containers.ScalarMap[str, str]
    remembered: bytes
    backend: str
    def __init__(self, kind: _Optional[str] = ..., unit_address: _Optional[int] = ..., options: _Optional[_Mapping[str, str]] = ..., remembered: _Optional[bytes] = ..., backend: _Optional[str] = ...) -> None: ...

class VcpuPosition(_message.Message):
    __slots__ = ("vcpu", "sequence")
    VCPU_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    vcpu: int
    sequence: int
    def __init__(self, vcpu: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class Offer(_message.Message):
    __slots__ = ("backend", "routes", "nodes", "ram_mapped", "mirrors", "features", "transports", "socket_connected")
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    RAM_MAPPED_FIELD_NUMBER: _ClassVar[int]
    MIRRORS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    TRANSPORTS_FIELD_NUMBER: _ClassVar[int]
    SOCKET_CONNECTED_FIELD_NUMBER: _ClassVar[int]
    backend: str
    routes: _containers.RepeatedCompositeFieldContainer[Route]
    nodes: _containers.RepeatedCompositeFieldContainer[TreeNode]
    ram_mapped: bool
    mirrors: _containers.RepeatedCompositeFieldContainer[Mirror]
    features: _containers.RepeatedScalarFieldContainer[Feature]
    transports: _containers.RepeatedCompositeFieldContainer[Transport]
    socket_connected: bool
    def __init__(self, backend: _Optional[str] = ..., routes: _Optional[_Iterable[_Union[Route, _Mapping]]] = ..., nodes: _Optional[_Iterable[_Union[TreeNode, _Mapping]]] = ..., ram_mapped: _Optional[bool] = ..., mirrors: _Optional[_Iterable[_Union[Mirror, _Mapping]]] = ..., features: _Optional[_Iterable[_Union[Feature, str]]] = ..., transports: _Optional[_Iterable[_Union[Transport, _Mapping]]] = ..., socket_connected: _Optional[bool] = ...) -> None: ...

class Transport(_message.Message):
    __slots__ = ("unit_address", "interrupt_source", "signal_mask", "window_bytes", "has_queue", "queue_open")
    UNIT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    INTERRUPT_SOURCE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_MASK_FIELD_NUMBER: _ClassVar[int]
    WINDOW_BYTES_FIELD_NUMBER: _ClassVar[int]
    HAS_QUEUE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_OPEN_FIELD_NUMBER: _ClassVar[int]
    unit_address: int
    interrupt_source: int
    signal_mask: int
    window_bytes: int
    has_queue: bool
    queue_open: bool
    def __init__(self, unit_address: _Optional[int] = ..., interrupt_source: _Optional[int] = ..., signal_mask: _Optional[int] = ..., window_bytes: _Optional[int] = ..., has_queue: _Optional[bool] = ..., queue_open: _Optional[bool] = ...) -> None: ...

class CrqEntries(_message.Message):
    __slots__ = ("unit_address", "entries", "dirty", "position")
    UNIT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    DIRTY_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    unit_address: int
    entries: bytes
    dirty: _containers.RepeatedCompositeFieldContainer[MemoryRange]
    position: int
    def __init__(self, unit_address: _Optional[int] = ..., entries: _Optional[bytes] = ..., dirty: _Optional[_Iterable[_Union[MemoryRange, _Mapping]]] = ..., position: _Optional[int] = ...) -> None: ...

class Mirror(_message.Message):
    __slots__ = ("name", "contents")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONTENTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    contents: bytes
    def __init__(self, name: _Optional[str] = ..., contents: _Optional[bytes] = ...) -> None: ...

class MirrorWrite(_message.Message):
    __slots__ = ("name", "offset", "data")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    offset: int
    data: bytes
    def __init__(self, name: _Optional[str] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Route(_message.Message):
    __slots__ = ("kind", "token", "name", "arguments", "operands", "posted", "unavailable_result", "selector", "keys", "buffers")
    KIND_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    OPERANDS_FIELD_NUMBER: _ClassVar[int]
    POSTED_FIELD_NUMBER: _ClassVar[int]
    UNAVAILABLE_RESULT_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    BUFFERS_FIELD_NUMBER: _ClassVar[int]
    kind: CallKind
    token: int
    name: str
    arguments: int
    operands: _containers.RepeatedCompositeFieldContainer[OperandSpec]
    posted: PostedPolicy
    unavailable_result: int
    selector: Selector
    keys: _containers.RepeatedCompositeFieldContainer[KeyRange]
    buffers: DescribedBuffers
    def __init__(self, kind: _Optional[_Union[CallKind, str]] = ..., token: _Optional[int] = ..., name: _Optional[str] = ..., arguments: _Optional[int] = ..., operands: _Optional[_Iterable[_Union[OperandSpec, _Mapping]]] = ..., posted: _Optional[_Union[PostedPolicy, _Mapping]] = ..., unavailable_result: _Optional[int] = ..., selector: _Optional[_Union[Selector, _Mapping]] = ..., keys: _Optional[_Iterable[_Union[KeyRange, _Mapping]]] = ..., buffers: _Optional[_Union[DescribedBuffers, _Mapping]] = ...) -> None: ...

class DescribedBuffers(_message.Message):
    __slots__ = ("first", "count", "min_each", "alignment", "min_bytes", "max_bytes")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    MIN_EACH_FIELD_NUMBER: _ClassVar[int]
    ALIGNMENT_FIELD_NUMBER: _ClassVar[int]
    MIN_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    first: int
    count: int
    min_each: int
    alignment: int
    min_bytes: int
    max_bytes: int
    def __init__(self, first: _Optional[int] = ..., count: _Optional[int] = ..., min_each: _Optional[int] = ..., alignment: _Optional[int] = ..., min_bytes: _Optional[int] = ..., max_bytes: _Optional[int] = ...) -> None: ...

class Selector(_message.Message):
    __slots__ = ("argument", "argument_pair", "word", "everybody", "no_owner_result")
    ARGUMENT_FIELD_NUMBER: _ClassVar[int]
    ARGUMENT_PAIR_FIELD_NUMBER: _ClassVar[int]
    WORD_FIELD_NUMBER: _ClassVar[int]
    EVERYBODY_FIELD_NUMBER: _ClassVar[int]
    NO_OWNER_RESULT_FIELD_NUMBER: _ClassVar[int]
    argument: int
    argument_pair: int
    word: OperandWord
    everybody: bool
    no_owner_result: int
    def __init__(self, argument: _Optional[int] = ..., argument_pair: _Optional[int] = ..., word: _Optional[_Union[OperandWord, _Mapping]] = ..., everybody: _Optional[bool] = ..., no_owner_result: _Optional[int] = ...) -> None: ...

class KeyRange(_message.Message):
    __slots__ = ("first", "last")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    first: int
    last: int
    def __init__(self, first: _Optional[int] = ..., last: _Optional[int] = ...) -> None: ...

class RouteKeys(_message.Message):
    __slots__ = ("route", "keys", "posted_keys")
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    POSTED_KEYS_FIELD_NUMBER: _ClassVar[int]
    route: int
    keys: _containers.RepeatedCompositeFieldContainer[KeyRange]
    posted_keys: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, route: _Optional[int] = ..., keys: _Optional[_Iterable[_Union[KeyRange, _Mapping]]] = ..., posted_keys: _Optional[_Iterable[int]] = ...) -> None: ...

class PostedPolicy(_message.Message):
    __slots__ = ("credit_bytes", "key_argument", "key_values", "size_argument", "max_size", "call_bytes", "at_once", "without_credit")
    CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    KEY_ARGUMENT_FIELD_NUMBER: _ClassVar[int]
    KEY_VALUES_FIELD_NUMBER: _ClassVar[int]
    SIZE_ARGUMENT_FIELD_NUMBER: _ClassVar[int]
    MAX_SIZE_FIELD_NUMBER: _ClassVar[int]
    CALL_BYTES_FIELD_NUMBER: _ClassVar[int]
    AT_ONCE_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_CREDIT_FIELD_NUMBER: _ClassVar[int]
    credit_bytes: int
    key_argument: int
    key_values: _containers.RepeatedScalarFieldContainer[int]
    size_argument: int
    max_size: int
    call_bytes: int
    at_once: bool
    without_credit: WithoutCredit
    def __init__(self, credit_bytes: _Optional[int] = ..., key_argument: _Optional[int] = ..., key_values: _Optional[_Iterable[int]] = ..., size_argument: _Optional[int] = ..., max_size: _Optional[int] = ..., call_bytes: _Optional[int] = ..., at_once: _Optional[bool] = ..., without_credit: _Optional[_Union[WithoutCredit, str]] = ...) -> None: ...

class OperandSpec(_message.Message):
    __slots__ = ("argument", "word", "size", "string")
    ARGUMENT_FIELD_NUMBER: _ClassVar[int]
    WORD_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    STRING_FIELD_NUMBER: _ClassVar[int]
    argument: int
    word: OperandWord
    size: int
    string: bool
    def __init__(self, argument: _Optional[int] = ..., word: _Optional[_Union[OperandWord, _Mapping]] = ..., size: _Optional[int] = ..., string: _Optional[bool] = ...) -> None: ...

class OperandWord(_message.Message):
    __slots__ = ("operand", "index")
    OPERAND_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    operand: int
    index: int
    def __init__(self, operand: _Optional[int] = ..., index: _Optional[int] = ...) -> None: ...

class Trap(_message.Message):
    __slots__ = ("vcpu", "sequence", "route", "arguments", "returns", "operands", "traceparent", "skipped", "buffers")
    VCPU_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    RETURNS_FIELD_NUMBER: _ClassVar[int]
    OPERANDS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    BUFFERS_FIELD_NUMBER: _ClassVar[int]
    vcpu: int
    sequence: int
    route: int
    arguments: _containers.RepeatedScalarFieldContainer[int]
    returns: int
    operands: _containers.RepeatedCompositeFieldContainer[MemoryBlock]
    traceparent: str
    skipped: int
    buffers: bytes
    def __init__(self, vcpu: _Optional[int] = ..., sequence: _Optional[int] = ..., route: _Optional[int] = ..., arguments: _Optional[_Iterable[int]] = ..., returns: _Optional[int] = ..., operands: _Optional[_Iterable[_Union[MemoryBlock, _Mapping]]] = ..., traceparent: _Optional[str] = ..., skipped: _Optional[int] = ..., buffers: _Optional[bytes] = ...) -> None: ...

class PostedBatch(_message.Message):
    __slots__ = ("traps",)
    TRAPS_FIELD_NUMBER: _ClassVar[int]
    traps: _containers.RepeatedCompositeFieldContainer[Trap]
    def __init__(self, traps: _Optional[_Iterable[_Union[Trap, _Mapping]]] = ...) -> None: ...

class MemoryBlock(_message.Message):
    __slots__ = ("address", "data")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    address: int
    data: bytes
    def __init__(self, address: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class MemoryRange(_message.Message):
    __slots__ = ("address", "length")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    address: int
    length: int
    def __init__(self, address: _Optional[int] = ..., length: _Optional[int] = ...) -> None: ...

class Reply(_message.Message):
    __slots__ = ("vcpu", "sequence", "result", "outputs", "returns", "writes", "dirty", "effects", "unknown_call")
    VCPU_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    RETURNS_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    DIRTY_FIELD_NUMBER: _ClassVar[int]
    EFFECTS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_CALL_FIELD_NUMBER: _ClassVar[int]
    vcpu: int
    sequence: int
    result: int
    outputs: _containers.RepeatedScalarFieldContainer[int]
    returns: _containers.RepeatedScalarFieldContainer[int]
    writes: _containers.RepeatedCompositeFieldContainer[MemoryBlock]
    dirty: _containers.RepeatedCompositeFieldContainer[MemoryRange]
    effects: _containers.RepeatedCompositeFieldContainer[Effect]
    unknown_call: bool
    def __init__(self, vcpu: _Optional[int] = ..., sequence: _Optional[int] = ..., result: _Optional[int] = ..., outputs: _Optional[_Iterable[int]] = ..., returns: _Optional[_Iterable[int]] = ..., writes: _Optional[_Iterable[_Union[MemoryBlock, _Mapping]]] = ..., dirty: _Optional[_Iterable[_Union[MemoryRange, _Mapping]]] = ..., effects: _Optional[_Iterable[_Union[Effect, _Mapping]]] = ..., unknown_call: _Optional[bool] = ...) -> None: ...

class Effect(_message.Message):
    __slots__ = ("interrupt", "action", "invoke", "mirror_write")
    INTERRUPT_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    INVOKE_FIELD_NUMBER: _ClassVar[int]
    MIRROR_WRITE_FIELD_NUMBER: _ClassVar[int]
    interrupt: Interrupt
    action: MachineAction
    invoke: Invoke
    mirror_write: MirrorWrite
    def __init__(self, interrupt: _Optional[_Union[Interrupt, _Mapping]] = ..., action: _Optional[_Union[MachineAction, _Mapping]] = ..., invoke: _Optional[_Union[Invoke, _Mapping]] = ..., mirror_write: _Optional[_Union[MirrorWrite, _Mapping]] = ...) -> None: ...

class Interrupt(_message.Message):
    __slots__ = ("source", "dirty")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DIRTY_FIELD_NUMBER: _ClassVar[int]
    source: int
    dirty: _containers.RepeatedCompositeFieldContainer[MemoryRange]
    def __init__(self, source: _Optional[int] = ..., dirty: _Optional[_Iterable[_Union[MemoryRange, _Mapping]]] = ...) -> None: ...

class MachineAction(_message.Message):
    __slots__ = ("kind", "reason", "reason_only")
    KIND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REASON_ONLY_FIELD_NUMBER: _ClassVar[int]
    kind: MachineActionKind
    reason: str
    reason_only: bool
    def __init__(self, kind: _Optional[_Union[MachineActionKind, str]] = ..., reason: _Optional[str] = ..., reason_only: _Optional[bool] = ...) -> None: ...

class MemoryRead(_message.Message):
    __slots__ = ("id", "range", "liobn", "more")
    ID_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    LIOBN_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    id: int
    range: MemoryRange
    liobn: int
    more: _containers.RepeatedCompositeFieldContainer[MemoryRange]
    def __init__(self, id: _Optional[int] = ..., range: _Optional[_Union[MemoryRange, _Mapping]] = ..., liobn: _Optional[int] = ..., more: _Optional[_Iterable[_Union[MemoryRange, _Mapping]]] = ...) -> None: ...

class MemoryWrite(_message.Message):
    __slots__ = ("id", "block", "liobn", "more")
    ID_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    LIOBN_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    id: int
    block: MemoryBlock
    liobn: int
    more: _containers.RepeatedCompositeFieldContainer[MemoryBlock]
    def __init__(self, id: _Optional[int] = ..., block: _Optional[_Union[MemoryBlock, _Mapping]] = ..., liobn: _Optional[int] = ..., more: _Optional[_Iterable[_Union[MemoryBlock, _Mapping]]] = ...) -> None: ...

class MemoryResult(_message.Message):
    __slots__ = ("id", "ok", "data")
    ID_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    id: int
    ok: bool
    data: bytes
    def __init__(self, id: _Optional[int] = ..., ok: _Optional[bool] = ..., data: _Optional[bytes] = ...) -> None: ...

class Invoke(_message.Message):
    __slots__ = ("id", "token", "arguments")
    ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    id: int
    token: int
    arguments: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, id: _Optional[int] = ..., token: _Optional[int] = ..., arguments: _Optional[_Iterable[int]] = ...) -> None: ...

class InvokeResult(_message.Message):
    __slots__ = ("id", "result", "outputs")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    id: int
    result: int
    outputs: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, id: _Optional[int] = ..., result: _Optional[int] = ..., outputs: _Optional[_Iterable[int]] = ...) -> None: ...

class Acknowledge(_message.Message):
    __slots__ = ("vcpu", "sequence")
    VCPU_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    vcpu: int
    sequence: int
    def __init__(self, vcpu: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class Reset(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class ResetDone(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class Detach(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class SaveState(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class SavedState(_message.Message):
    __slots__ = ("id", "data", "last", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: int
    data: bytes
    last: bool
    error: str
    def __init__(self, id: _Optional[int] = ..., data: _Optional[bytes] = ..., last: _Optional[bool] = ..., error: _Optional[str] = ...) -> None: ...

class RestoreState(_message.Message):
    __slots__ = ("data", "last")
    DATA_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    last: bool
    def __init__(self, data: _Optional[bytes] = ..., last: _Optional[bool] = ...) -> None: ...

class Resumed(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Continued(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Inventory(_message.Message):
    __slots__ = ("nodes", "devices", "keys", "transports")
    NODES_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    TRANSPORTS_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[TreeNode]
    devices: _containers.RepeatedCompositeFieldContainer[DeviceSpec]
    keys: _containers.RepeatedCompositeFieldContainer[RouteKeys]
    transports: _containers.RepeatedCompositeFieldContainer[Transport]
    def __init__(self, nodes: _Optional[_Iterable[_Union[TreeNode, _Mapping]]] = ..., devices: _Optional[_Iterable[_Union[DeviceSpec, _Mapping]]] = ..., keys: _Optional[_Iterable[_Union[RouteKeys, _Mapping]]] = ..., transports: _Optional[_Iterable[_Union[Transport, _Mapping]]] = ...) -> None: ...

class TreeNode(_message.Message):
    __slots__ = ("path", "properties")
    PATH_FIELD_NUMBER: _ClassVar[int]
    PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    path: str
    properties: _containers.RepeatedCompositeFieldContainer[TreeProperty]
    def __init__(self, path: _Optional[str] = ..., properties: _Optional[_Iterable[_Union[TreeProperty, _Mapping]]] = ...) -> None: ...

class TreeProperty(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: bytes
    def __init__(self, name: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
