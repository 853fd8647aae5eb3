from splitvisor.rpc import device_tree_pb2 as _device_tree_pb2
from splitvisor.rpc import machine_pb2 as _machine_pb2
from splitvisor.rpc import scsi_state_pb2 as _scsi_state_pb2
from splitvisor.rpc import trap_pb2 as _trap_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class VcpuRunState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VCPU_RUN_STATE_UNSPECIFIED: _ClassVar[VcpuRunState]
    VCPU_RUN_STATE_RUNNING: _ClassVar[VcpuRunState]
    VCPU_RUN_STATE_CEDED: _ClassVar[VcpuRunState]
    VCPU_RUN_STATE_WAITING: _ClassVar[VcpuRunState]
    VCPU_RUN_STATE_STOPPED: _ClassVar[VcpuRunState]
VCPU_RUN_STATE_UNSPECIFIED: VcpuRunState
VCPU_RUN_STATE_RUNNING: VcpuRunState
VCPU_RUN_STATE_CEDED: VcpuRunState
VCPU_RUN_STATE_WAITING: VcpuRunState
VCPU_RUN_STATE_STOPPED: VcpuRunState

class SavedMachine(_message.Message):
    __slots__ = ("version", "config", "incarnation", "layout", "time_ns", "resets", "rtas_calls", "hypercalls", "transports", "hash_table_shift", "prepared_hash_table_shift")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    RESETS_FIELD_NUMBER: _ClassVar[int]
    RTAS_CALLS_FIELD_NUMBER: _ClassVar[int]
    HYPERCALLS_FIELD_NUMBER: _ClassVar[int]
    TRANSPORTS_FIELD_NUMBER: _ClassVar[int]
    HASH_TABLE_SHIFT_FIELD_NUMBER: _ClassVar[int]
    PREPARED_HASH_TABLE_SHIFT_FIELD_NUMBER: _ClassVar[int]
    version: int
    config: _machine_pb2.MachineConfig
    incarnation: int
    layout: str
    time_ns: int
    resets: int
    rtas_calls: _containers.RepeatedCompositeFieldContainer[_device_tree_pb2.RtasToken]
    hypercalls: _containers.RepeatedScalarFieldContainer[int]
    transports: _containers.RepeatedCompositeFieldContainer[SavedTransport]
    hash_table_shift: int
    prepared_hash_table_shift: int
    def __init__(self, version: _Optional[int] = ..., config: _Optional[_Union[_machine_pb2.MachineConfig, _Mapping]] = ..., incarnation: _Optional[int] = ..., layout: _Optional[str] = ..., time_ns: _Optional[int] = ..., resets: _Optional[int] = ..., rtas_calls: _Optional[_Iterable[_Union[_device_tree_pb2.RtasToken, _Mapping]]] = ..., hypercalls: _Optional[_Iterable[int]] = ..., transports: _Optional[_Iterable[_Union[SavedTransport, _Mapping]]] = ..., hash_table_shift: _Optional[int] = ..., prepared_hash_table_shift: _Optional[int] = ...) -> None: ...

class SavedTransport(_message.Message):
    __slots__ = ("unit_address", "signal_mode", "queue")
    UNIT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_MODE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    unit_address: int
    signal_mode: int
    queue: SavedQueue
    def __init__(self, unit_address: _Optional[int] = ..., signal_mode: _Optional[int] = ..., queue: _Optional[_Union[SavedQueue, _Mapping]] = ...) -> None: ...

class SavedQueue(_message.Message):
    __slots__ = ("ioba", "bytes", "next", "held", "is_closed", "entries")
    IOBA_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    IS_CLOSED_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    ioba: int
    bytes: int
    next: int
    held: bytes
    is_closed: bool
    entries: int
    def __init__(self, ioba: _Optional[int] = ..., bytes: _Optional[int] = ..., next: _Optional[int] = ..., held: _Optional[bytes] = ..., is_closed: _Optional[bool] = ..., entries: _Optional[int] = ...) -> None: ...

class SavedVcpus(_message.Message):
    __slots__ = ("vcpus", "current", "timebase", "watchdogs")
    VCPUS_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    TIMEBASE_FIELD_NUMBER: _ClassVar[int]
    WATCHDOGS_FIELD_NUMBER: _ClassVar[int]
    vcpus: _containers.RepeatedCompositeFieldContainer[SavedVcpu]
    current: int
    timebase: int
    watchdogs: _containers.RepeatedCompositeFieldContainer[SavedWatchdog]
    def __init__(self, vcpus: _Optional[_Iterable[_Union[SavedVcpu, _Mapping]]] = ..., current: _Optional[int] = ..., timebase: _Optional[int] = ..., watchdogs: _Optional[_Iterable[_Union[SavedWatchdog, _Mapping]]] = ...) -> None: ...

class SavedWatchdog(_message.Message):
    __slots__ = ("number", "action", "leave_others", "left_ns")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    LEAVE_OTHERS_FIELD_NUMBER: _ClassVar[int]
    LEFT_NS_FIELD_NUMBER: _ClassVar[int]
    number: int
    action: int
    leave_others: bool
    left_ns: int
    def __init__(self, number: _Optional[int] = ..., action: _Optional[int] = ..., leave_others: _Optional[bool] = ..., left_ns: _Optional[int] = ...) -> None: ...

class SavedVcpu(_message.Message):
    __slots__ = ("registers", "run_state", "prodded", "vpa", "slb_shadow", "dtl", "decrementer_zero_ns", "decrementer_due_ns", "start_msr", "decrementer_pending", "system_reset_pending")
    REGISTERS_FIELD_NUMBER: _ClassVar[int]
    RUN_STATE_FIELD_NUMBER: _ClassVar[int]
    PRODDED_FIELD_NUMBER: _ClassVar[int]
    VPA_FIELD_NUMBER: _ClassVar[int]
    SLB_SHADOW_FIELD_NUMBER: _ClassVar[int]
    DTL_FIELD_NUMBER: _ClassVar[int]
    DECREMENTER_ZERO_NS_FIELD_NUMBER: _ClassVar[int]
    DECREMENTER_DUE_NS_FIELD_NUMBER: _ClassVar[int]
    START_MSR_FIELD_NUMBER: _ClassVar[int]
    DECREMENTER_PENDING_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_RESET_PENDING_FIELD_NUMBER: _ClassVar[int]
    registers: bytes
    run_state: VcpuRunState
    prodded: bool
    vpa: int
    slb_shadow: int
    dtl: int
    decrementer_zero_ns: int
    decrementer_due_ns: int
    start_msr: int
    decrementer_pending: bool
    system_reset_pending: bool
    def __init__(self, registers: _Optional[bytes] = ..., run_state: _Optional[_Union[VcpuRunState, str]] = ..., prodded: _Optional[bool] = ..., vpa: _Optional[int] = ..., slb_shadow: _Optional[int] = ..., dtl: _Optional[int] = ..., decrementer_zero_ns: _Optional[int] = ..., decrementer_due_ns: _Optional[int] = ..., start_msr: _Optional[int] = ..., decrementer_pending: _Optional[bool] = ..., system_reset_pending: _Optional[bool] = ...) -> None: ...

class SavedInterrupts(_message.Message):
    __slots__ = ("presenters", "sources", "nmi_handlers")
    PRESENTERS_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    NMI_HANDLERS_FIELD_NUMBER: _ClassVar[int]
    presenters: _containers.RepeatedCompositeFieldContainer[SavedPresenter]
    sources: _containers.RepeatedCompositeFieldContainer[SavedSource]
    nmi_handlers: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, presenters: _Optional[_Iterable[_Union[SavedPresenter, _Mapping]]] = ..., sources: _Optional[_Iterable[_Union[SavedSource, _Mapping]]] = ..., nmi_handlers: _Optional[_Iterable[int]] = ...) -> None: ...

class SavedPresenter(_message.Message):
    __slots__ = ("cppr", "xisr", "priority", "mfrr", "waiting")
    CPPR_FIELD_NUMBER: _ClassVar[int]
    XISR_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    MFRR_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    cppr: int
    xisr: int
    priority: int
    mfrr: int
    waiting: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, cppr: _Optional[int] = ..., xisr: _Optional[int] = ..., priority: _Optional[int] = ..., mfrr: _Optional[int] = ..., waiting: _Optional[_Iterable[int]] = ...) -> None: ...

class SavedSource(_message.Message):
    __slots__ = ("number", "server", "priority", "saved_priority")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    SAVED_PRIORITY_FIELD_NUMBER: _ClassVar[int]
    number: int
    server: int
    priority: int
    saved_priority: int
    def __init__(self, number: _Optional[int] = ..., server: _Optional[int] = ..., priority: _Optional[int] = ..., saved_priority: _Optional[int] = ...) -> None: ...

class SavedBackend(_message.Message):
    __slots__ = ("name", "backend", "devices", "state")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    name: str
    backend: str
    devices: _containers.RepeatedCompositeFieldContainer[_trap_pb2.DeviceSpec]
    state: bytes
    def __init__(self, name: _Optional[str] = ..., backend: _Optional[str] = ..., devices: _Optional[_Iterable[_Union[_trap_pb2.DeviceSpec, _Mapping]]] = ..., state: _Optional[bytes] = ...) -> None: ...

class SavedPages(_message.Message):
    __slots__ = ("address", "present", "pages")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PRESENT_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    address: int
    present: bytes
    pages: bytes
    def __init__(self, address: _Optional[int] = ..., present: _Optional[bytes] = ..., pages: _Optional[bytes] = ...) -> None: ...

class VioState(_message.Message):
    __slots__ = ("version", "devices", "connectors")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    CONNECTORS_FIELD_NUMBER: _ClassVar[int]
    version: int
    devices: _containers.RepeatedCompositeFieldContainer[VioDeviceState]
    connectors: _containers.RepeatedCompositeFieldContainer[VioConnectorState]
    def __init__(self, version: _Optional[int] = ..., devices: _Optional[_Iterable[_Union[VioDeviceState, _Mapping]]] = ..., connectors: _Optional[_Iterable[_Union[VioConnectorState, _Mapping]]] = ...) -> None: ...

class VioDeviceState(_message.Message):
    __slots__ = ("spec", "signal_state", "window", "state", "queue")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_STATE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    spec: _trap_pb2.DeviceSpec
    signal_state: int
    window: DmaWindowState
    state: bytes
    queue: QueueState
    def __init__(self, spec: _Optional[_Union[_trap_pb2.DeviceSpec, _Mapping]] = ..., signal_state: _Optional[int] = ..., window: _Optional[_Union[DmaWindowState, _Mapping]] = ..., state: _Optional[bytes] = ..., queue: _Optional[_Union[QueueState, _Mapping]] = ...) -> None: ...

class QueueState(_message.Message):
    __slots__ = ("is_open", "entries")
    IS_OPEN_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    is_open: bool
    entries: int
    def __init__(self, is_open: _Optional[bool] = ..., entries: _Optional[int] = ...) -> None: ...

class DmaWindowState(_message.Message):
    __slots__ = ("bypass", "leaves")
    BYPASS_FIELD_NUMBER: _ClassVar[int]
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    bypass: bool
    leaves: _containers.RepeatedCompositeFieldContainer[TceLeaf]
    def __init__(self, bypass: _Optional[bool] = ..., leaves: _Optional[_Iterable[_Union[TceLeaf, _Mapping]]] = ...) -> None: ...

class TceLeaf(_message.Message):
    __slots__ = ("number", "entries")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    number: int
    entries: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, number: _Optional[int] = ..., entries: _Optional[_Iterable[int]] = ...) -> None: ...

class VioConnectorState(_message.Message):
    __slots__ = ("index", "state", "removal_asked", "indicator", "node", "device")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REMOVAL_ASKED_FIELD_NUMBER: _ClassVar[int]
    INDICATOR_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    index: int
    state: int
    removal_asked: bool
    indicator: int
    node: _trap_pb2.TreeNode
    device: bytes
    def __init__(self, index: _Optional[int] = ..., state: _Optional[int] = ..., removal_asked: _Optional[bool] = ..., indicator: _Optional[int] = ..., node: _Optional[_Union[_trap_pb2.TreeNode, _Mapping]] = ..., device: _Optional[bytes] = ...) -> None: ...

class VtyState(_message.Message):
    __slots__ = ("version", "output", "output_end", "input", "input_received", "instance")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_END_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    INPUT_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    version: int
    output: bytes
    output_end: int
    input: bytes
    input_received: int
    instance: int
    def __init__(self, version: _Optional[int] = ..., output: _Optional[bytes] = ..., output_end: _Optional[int] = ..., input: _Optional[bytes] = ..., input_received: _Optional[int] = ..., instance: _Optional[int] = ...) -> None: ...

class VscsiState(_message.Message):
    __slots__ = ("version", "logged_in", "target", "requests")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LOGGED_IN_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    version: int
    logged_in: bool
    target: _scsi_state_pb2.ScsiTargetState
    requests: _containers.RepeatedCompositeFieldContainer[VscsiRequest]
    def __init__(self, version: _Optional[int] = ..., logged_in: _Optional[bool] = ..., target: _Optional[_Union[_scsi_state_pb2.ScsiTargetState, _Mapping]] = ..., requests: _Optional[_Iterable[_Union[VscsiRequest, _Mapping]]] = ...) -> None: ...

class VscsiRequest(_message.Message):
    __slots__ = ("format", "ioba", "length")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    IOBA_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    format: int
    ioba: int
    length: int
    def __init__(self, format: _Optional[int] = ..., ioba: _Optional[int] = ..., length: _Optional[int] = ...) -> None: ...

class VtyServerState(_message.Message):
    __slots__ = ("version", "vm", "unit_address", "position", "output")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VM_FIELD_NUMBER: _ClassVar[int]
    UNIT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    version: int
    vm: str
    unit_address: int
    position: int
    output: bytes
    def __init__(self, version: _Optional[int] = ..., vm: _Optional[str] = ..., unit_address: _Optional[int] = ..., position: _Optional[int] = ..., output: _Optional[bytes] = ...) -> None: ...

class NvramState(_message.Message):
    __slots__ = ("version", "contents")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONTENTS_FIELD_NUMBER: _ClassVar[int]
    version: int
    contents: bytes
    def __init__(self, version: _Optional[int] = ..., contents: _Optional[bytes] = ...) -> None: ...

class LanState(_message.Message):
    __slots__ = ("version", "mac", "attributes", "reception", "filtering", "groups", "registration", "buffers")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MAC_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    RECEPTION_FIELD_NUMBER: _ClassVar[int]
    FILTERING_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    REGISTRATION_FIELD_NUMBER: _ClassVar[int]
    BUFFERS_FIELD_NUMBER: _ClassVar[int]
    version: int
    mac: bytes
    attributes: int
    reception: bool
    filtering: bool
    groups: _containers.RepeatedScalarFieldContainer[bytes]
    registration: LanRegistration
    buffers: _containers.RepeatedCompositeFieldContainer[LanBuffer]
    def __init__(self, version: _Optional[int] = ..., mac: _Optional[bytes] = ..., attributes: _Optional[int] = ..., reception: _Optional[bool] = ..., filtering: _Optional[bool] = ..., groups: _Optional[_Iterable[bytes]] = ..., registration: _Optional[_Union[LanRegistration, _Mapping]] = ..., buffers: _Optional[_Iterable[_Union[LanBuffer, _Mapping]]] = ...) -> None: ...

class LanRegistration(_message.Message):
    __slots__ = ("buffer_list", "filter_list", "queue", "queue_bytes")
    BUFFER_LIST_FIELD_NUMBER: _ClassVar[int]
    FILTER_LIST_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_BYTES_FIELD_NUMBER: _ClassVar[int]
    buffer_list: int
    filter_list: int
    queue: int
    queue_bytes: int
    def __init__(self, buffer_list: _Optional[int] = ..., filter_list: _Optional[int] = ..., queue: _Optional[int] = ..., queue_bytes: _Optional[int] = ...) -> None: ...

class LanBuffer(_message.Message):
    __slots__ = ("ioba", "length")
    IOBA_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    ioba: int
    length: int
    def __init__(self, ioba: _Optional[int] = ..., length: _Optional[int] = ...) -> None: ...

class PlatformState(_message.Message):
    __slots__ = ("version", "clock_offset_seconds", "nmi_handlers", "events", "revisions", "clock_offset_nanoseconds")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CLOCK_OFFSET_SECONDS_FIELD_NUMBER: _ClassVar[int]
    NMI_HANDLERS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    REVISIONS_FIELD_NUMBER: _ClassVar[int]
    CLOCK_OFFSET_NANOSECONDS_FIELD_NUMBER: _ClassVar[int]
    version: int
    clock_offset_seconds: int
    nmi_handlers: _containers.RepeatedScalarFieldContainer[int]
    events: _containers.RepeatedCompositeFieldContainer[PlatformEventState]
    revisions: _containers.RepeatedCompositeFieldContainer[SavedRevision]
    clock_offset_nanoseconds: int
    def __init__(self, version: _Optional[int] = ..., clock_offset_seconds: _Optional[int] = ..., nmi_handlers: _Optional[_Iterable[int]] = ..., events: _Optional[_Iterable[_Union[PlatformEventState, _Mapping]]] = ..., revisions: _Optional[_Iterable[_Union[SavedRevision, _Mapping]]] = ..., clock_offset_nanoseconds: _Optional[int] = ...) -> None: ...

class PlatformEventState(_message.Message):
    __slots__ = ("event_class", "source", "entry")
    EVENT_CLASS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    event_class: int
    source: int
    entry: bytes
    def __init__(self, event_class: _Optional[int] = ..., source: _Optional[int] = ..., entry: _Optional[bytes] = ...) -> None: ...

class SavedRevision(_message.Message):
    __slots__ = ("number", "time_ns", "origin", "sha256", "blob")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    number: int
    time_ns: int
    origin: _device_tree_pb2.TreeOrigin
    sha256: bytes
    blob: bytes
    def __init__(self, number: _Optional[int] = ..., time_ns: _Optional[int] = ..., origin: _Optional[_Union[_device_tree_pb2.TreeOrigin, str]] = ..., sha256: _Optional[bytes] = ..., blob: _Optional[bytes] = ...) -> None: ...

class ClientInterfaceState(_message.Message):
    __slots__ = ("version", "tree", "phandles", "growth", "claims", "instances", "last_ihandle", "milliseconds", "boot_request")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TREE_FIELD_NUMBER: _ClassVar[int]
    PHANDLES_FIELD_NUMBER: _ClassVar[int]
    GROWTH_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    LAST_IHANDLE_FIELD_NUMBER: _ClassVar[int]
    MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    BOOT_REQUEST_FIELD_NUMBER: _ClassVar[int]
    version: int
    tree: bytes
    phandles: _containers.RepeatedScalarFieldContainer[int]
    growth: int
    claims: _containers.RepeatedScalarFieldContainer[int]
    instances: _containers.RepeatedCompositeFieldContainer[InstanceState]
    last_ihandle: int
    milliseconds: int
    boot_request: BootRequestState
    def __init__(self, version: _Optional[int] = ..., tree: _Optional[bytes] = ..., phandles: _Optional[_Iterable[int]] = ..., growth: _Optional[int] = ..., claims: _Optional[_Iterable[int]] = ..., instances: _Optional[_Iterable[_Union[InstanceState, _Mapping]]] = ..., last_ihandle: _Optional[int] = ..., milliseconds: _Optional[int] = ..., boot_request: _Optional[_Union[BootRequestState, _Mapping]] = ...) -> None: ...

class InstanceState(_message.Message):
    __slots__ = ("ihandle", "phandle", "terminal", "unread", "after_return", "path", "disk", "network")
    IHANDLE_FIELD_NUMBER: _ClassVar[int]
    PHANDLE_FIELD_NUMBER: _ClassVar[int]
    TERMINAL_FIELD_NUMBER: _ClassVar[int]
    UNREAD_FIELD_NUMBER: _ClassVar[int]
    AFTER_RETURN_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    DISK_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    ihandle: int
    phandle: int
    terminal: int
    unread: bytes
    after_return: bool
    path: str
    disk: DiskInstanceState
    network: int
    def __init__(self, ihandle: _Optional[int] = ..., phandle: _Optional[int] = ..., terminal: _Optional[int] = ..., unread: _Optional[bytes] = ..., after_return: _Optional[bool] = ..., path: _Optional[str] = ..., disk: _Optional[_Union[DiskInstanceState, _Mapping]] = ..., network: _Optional[int] = ...) -> None: ...

class DiskInstanceState(_message.Message):
    __slots__ = ("adapter", "lun", "unit", "extents", "position")
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    LUN_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    EXTENTS_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    adapter: int
    lun: int
    unit: _containers.RepeatedScalarFieldContainer[int]
    extents: _containers.RepeatedScalarFieldContainer[int]
    position: int
    def __init__(self, adapter: _Optional[int] = ..., lun: _Optional[int] = ..., unit: _Optional[_Iterable[int]] = ..., extents: _Optional[_Iterable[int]] = ..., position: _Optional[int] = ...) -> None: ...

class BootRequestState(_message.Message):
    __slots__ = ("path", "arguments")
    PATH_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    path: str
    arguments: str
    def __init__(self, path: _Optional[str] = ..., arguments: _Optional[str] = ...) -> None: ...
