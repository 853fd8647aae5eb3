# SPDX-License-Identifier: GPL-2.0-or-later
"""The calls of logical LAN devices (LoPAPR 16.4.4).

Frames and buffers for frames are posted: the guest goes on as soon as cpu_service has the frame's bytes, or has seen that the
buffer is one. What the guest would have to hear of goes the synchronous way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

from splitvisor.backend import Call, DescribedBuffers, Hypercall, Posted, Result, RtasCall
from splitvisor.backend.vio import ADDRESS_MASK, PAGE_BYTES, by_address
from splitvisor.lan.mac import MAC_BYTES
from splitvisor.lan.wire import MIN_FRAME
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from vio_service.devices.llan.buffers import POSTED_BUFFERS
from vio_service.devices.llan.device import MAX_SEND, LogicalLan
from vio_service.devices.llan.layout import CORRELATOR_BYTES, ENTRY_BYTES, Descriptor
from vio_service.devices.llan.receiver import Registration

MIN_BUFFER = 2 * CORRELATOR_BYTES
BUFFER_ALIGNMENT = 4
MAX_IOBA = 0xFFFF_FFFF
"""Descriptors hold no more."""
SEND_DESCRIPTORS = 6
ADD_DESCRIPTORS = 8
SEND_CREDIT, FRAME_CREDIT = 1 << 20, 256
"""Bytes of frames that may be under way, and what each counts beside its own."""
_MAC_MASK = (1 << 8 * MAC_BYTES) - 1


def _device(session: Any, call: Call) -> LogicalLan | None:
    found: LogicalLan | None = session.bus.find(call.arguments[0] & ADDRESS_MASK, LogicalLan)
    return found


def _mac(word: int) -> bytes:
    return (word & _MAC_MASK).to_bytes(MAC_BYTES, "big")


def _registration(buffer_list: int, queue: Descriptor, filter_list: int) -> Registration | None:
    """Return what to register; None for numbers that cannot be."""
    pages = (buffer_list, filter_list)
    if any(page % PAGE_BYTES or page > MAX_IOBA for page in pages) or buffer_list == filter_list:
        return None
    if not queue.is_valid or queue.ioba % ENTRY_BYTES or queue.length % ENTRY_BYTES or not queue.length:
        return None
    return Registration(buffer_list, filter_list, queue.ioba, queue.length)


async def register(session: Any, call: Call) -> int:
    """Open the device: unit address, buffer list, descriptor of the receive queue, filter list, MAC address."""
    _, buffer_list, queue, filter_list, mac = call.arguments
    device = _device(session, call)
    registered = _registration(buffer_list, Descriptor.of(queue), filter_list)
    if device is None or registered is None:
        return H.PARAMETER
    return await device.open(registered, _mac(mac))


async def free(session: Any, call: Call) -> int:
    """Close the device, after which it touches no memory: unit address."""
    device = _device(session, call)
    return H.PARAMETER if device is None else await device.free()


async def add_buffer(session: Any, call: Call) -> int:
    """Give the device a buffer for a frame: unit address, descriptor."""
    return await _add(_device(session, call), call.arguments[1], may_be_read=call.buffers is not None)


async def add_buffers(session: Any, call: Call) -> int:
    """Give the device buffers for frames: unit address, descriptors up to the first that is not valid, or that it cannot take."""
    device = _device(session, call)
    if device is None or not Descriptor.of(call.arguments[1]).is_valid:
        return H.PARAMETER
    for word in call.arguments[1:]:
        if not Descriptor.of(word).is_valid:
            break
        result = await _add(device, word)
        if result != H.SUCCESS:
            return result
    return H.SUCCESS


async def _add(device: LogicalLan | None, word: int, *, may_be_read: bool = False) -> int:
    descriptor = Descriptor.of(word)
    if device is None or not descriptor.is_valid or descriptor.length < MIN_BUFFER or descriptor.ioba % BUFFER_ALIGNMENT:
        return H.PARAMETER
    receiver = await device.ready()
    if receiver is None:
        return H.RESOURCE
    added = await receiver.add(descriptor, may_be_read=may_be_read)
    if added is None:
        return H.PARAMETER
    device.buffer_added()
    return H.SUCCESS if added else H.RESOURCE


def send(session: Any, call: Call) -> int | Awaitable[int]:
    """Send a frame: unit address, up to 6 descriptors, a token, size of TCP's segments for a large one.

    The token says which call goes on that was answered with H_BUSY: there is none.
    """
    _, *words, _token, mss = call.arguments
    device = _device(session, call)
    if device is None:
        return H.PARAMETER
    if call.buffers is not None:
        return device.send_frame(call.buffers, Descriptor.of(words[0]).flags, mss)
    return device.send([Descriptor.of(word) for word in words], mss)


def multicast_control(session: Any, call: Call) -> Result:
    """Change which groups' frames are received: unit address, flags, MAC address; r4 is the state after that."""
    _, flags, mac = call.arguments
    device = _device(session, call)
    if device is None:
        return Result(H.PARAMETER)
    result = device.control_groups(flags, _mac(mac))
    return Result(result, (device.filters.status,))


def change_mac(session: Any, call: Call) -> int:
    """Change the device's address: unit address, MAC address."""
    device = _device(session, call)
    return H.PARAMETER if device is None else device.change_mac(_mac(call.arguments[1]))


async def free_buffer(session: Any, call: Call) -> int:
    """Get an unused buffer back, by an entry of the receive queue that is not valid: unit address, length."""
    device = _device(session, call)
    if device is None:
        return H.PARAMETER
    receiver = await device.ready()
    if receiver is None:
        return H.RESOURCE
    return H.SUCCESS if await receiver.give_back(call.arguments[1]) else H.NOT_FOUND


def attributes(session: Any, call: Call) -> Result:
    """Change what the device does for the guest: unit address, attributes to turn off, to turn on; r4 is those after that."""
    _, reset, set_ = call.arguments
    device = _device(session, call)
    if device is None:
        return Result(H.PARAMETER)
    return Result(device.change_attributes(reset, set_), (device.attributes,))


def _open(session: Any) -> Sequence[int]:
    return [device.unit_address for device in session.bus.all(LogicalLan) if device.receiver is not None]


def _with_room(session: Any) -> Sequence[int]:
    return [device.unit_address for device in session.bus.all(LogicalLan) if device.takes_posted_buffers]


_UNIT = by_address(LogicalLan)

_POSTED_FRAME = Posted(
    SEND_CREDIT,
    0,
    _open,
    call_bytes=FRAME_CREDIT,
    at_once=True,
    waits_for_credit=True,
    buffers=DescribedBuffers(1, SEND_DESCRIPTORS, min_bytes=MIN_FRAME, max_bytes=MAX_SEND),
)
_POSTED_BUFFER = Posted(
    POSTED_BUFFERS,
    0,
    _with_room,
    call_bytes=1,
    waits_for_credit=True,
    buffers=DescribedBuffers(1, 1, min_each=MIN_BUFFER, alignment=BUFFER_ALIGNMENT, min_bytes=MIN_BUFFER),
)

CALLS: tuple[Hypercall | RtasCall, ...] = (
    Hypercall(Hcall.H_REGISTER_LOGICAL_LAN, register, arguments=5, section="LoPAPR 16.4.4.1", key=_UNIT),
    Hypercall(Hcall.H_FREE_LOGICAL_LAN, free, arguments=1, section="LoPAPR 16.4.4.2", key=_UNIT),
    Hypercall(
        Hcall.H_ADD_LOGICAL_LAN_BUFFER,
        add_buffer,
        arguments=2,
        section="LoPAPR 16.4.4.3",
        key=_UNIT,
        posted=_POSTED_BUFFER,
    ),
    Hypercall(
        Hcall.H_ADD_LOGICAL_LAN_BUFFERS,
        add_buffers,
        arguments=1 + ADD_DESCRIPTORS,
        section="Linux hvcall.h",
        key=_UNIT,
    ),
    Hypercall(Hcall.H_FREE_LOGICAL_LAN_BUFFER, free_buffer, arguments=2, section="LoPAPR 16.4.4.4", key=_UNIT),
    Hypercall(
        Hcall.H_SEND_LOGICAL_LAN,
        send,
        arguments=3 + SEND_DESCRIPTORS,
        section="LoPAPR 16.4.4.5",
        key=_UNIT,
        posted=_POSTED_FRAME,
        unavailable_result=H.DROPPED,
    ),
    Hypercall(Hcall.H_MULTICAST_CTRL, multicast_control, arguments=3, section="LoPAPR 16.4.4.6", key=_UNIT),
    Hypercall(Hcall.H_CHANGE_LOGICAL_LAN_MAC, change_mac, arguments=2, section="LoPAPR 16.4.4.7", key=_UNIT),
    Hypercall(Hcall.H_ILLAN_ATTRIBUTES, attributes, arguments=3, section="LoPAPR 16.4.4.8", key=_UNIT),
)
