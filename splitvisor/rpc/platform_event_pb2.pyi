from splitvisor.rpc import access_pb2 as _access_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HotplugResource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HOTPLUG_RESOURCE_UNSPECIFIED: _ClassVar[HotplugResource]
    HOTPLUG_RESOURCE_SLOT: _ClassVar[HotplugResource]
    HOTPLUG_RESOURCE_PHB: _ClassVar[HotplugResource]

class HotplugAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HOTPLUG_ACTION_UNSPECIFIED: _ClassVar[HotplugAction]
    HOTPLUG_ACTION_ADD: _ClassVar[HotplugAction]
    HOTPLUG_ACTION_REMOVE: _ClassVar[HotplugAction]
HOTPLUG_RESOURCE_UNSPECIFIED: HotplugResource
HOTPLUG_RESOURCE_SLOT: HotplugResource
HOTPLUG_RESOURCE_PHB: HotplugResource
HOTPLUG_ACTION_UNSPECIFIED: HotplugAction
HOTPLUG_ACTION_ADD: HotplugAction
HOTPLUG_ACTION_REMOVE: HotplugAction

class RaiseHotplugRequest(_message.Message):
    __slots__ = ("vm", "resource", "action", "drc_index")
    VM_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    DRC_INDEX_FIELD_NUMBER: _ClassVar[int]
    vm: str
    resource: HotplugResource
    action: HotplugAction
    drc_index: int
    def __init__(self, vm: _Optional[str] = ..., resource: _Optional[_Union[HotplugResource, str]] = ..., action: _Optional[_Union[HotplugAction, str]] = ..., drc_index: _Optional[int] = ...) -> None: ...

class RaiseHotplugResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
