# SPDX-License-Identifier: GPL-2.0-or-later
"""Logical LAN: the network device of a pseries guest (LoPAPR 16.4), between its hypercalls and a wire.

What the guest sends leaves with the call. What arrives waits for buffers here, a bounded number of frames; more stay at the wire.

The guest's free buffers stand in its own memory (receiver.py), and the rest is with cpu_service (VioDevice.remembered()): when
this process is killed, the next one goes on with both, and the guest has lost some frames.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import takewhile

from splitvisor.backend import Vm
from splitvisor.backend.vio import BusError, DmaError, Piece, VioDevice, cells_property
from splitvisor.lan.mac import MAC_BYTES, default_mac
from splitvisor.lan.options import parse_net
from splitvisor.lan.wire import MIN_FRAME, Counters, WireError
from splitvisor.papr.codes import H
from splitvisor.rpc import state_pb2, trap_pb2, vio_bus_pb2
from vio_service.devices.llan import state
from vio_service.devices.llan.buffers import NO_SLOT, POSTED_BUFFERS
from vio_service.devices.llan.connection import Connection
from vio_service.devices.llan.filters import MAX_FILTERS, Filters, is_group, is_own_address
from vio_service.devices.llan.firmware_port import FirmwarePort
from vio_service.devices.llan.layout import LARGE_SEND, NO_CHECKSUM, Descriptor
from vio_service.devices.llan.offload import segments, with_checksum
from vio_service.devices.llan.receiver import Offload, Receiver, Registration

MAX_SEND = 65536
"""Bytes of a frame from the guest: what Linux has room for."""

MAX_WHOLE = 65535
"""Bytes of a large frame that need not be cut on a wire that ends TCP: passt takes no more."""

IPV4_CHECKSUM, IPV6_CHECKSUM, LARGE_SEND_ENABLED = 0x2, 0x4, 0x1_0000
"""Attributes that the guest turns on: it leaves TCP's checksums to the device, and cutting into segments; with the last, it also
takes received segments that are merged."""
PADDED_CHECKSUM, LARGE_SEND_SUPPORT, MANY_BUFFERS = 0x2000, 0x8000, 0x4_0000
"""Attributes that the device has: checksums of padded frames, cutting into segments, H_ADD_LOGICAL_LAN_BUFFERS."""
CHECKSUMS = IPV4_CHECKSUM | IPV6_CHECKSUM
SETTABLE = CHECKSUMS | LARGE_SEND_ENABLED
OFFERED = PADDED_CHECKSUM | LARGE_SEND_SUPPORT | MANY_BUFFERS
NETWORK_TYPES = b"ethernet,auto,none,auto\0"
"""Kind, speed in Mb/s, connector, duplex (IEEE 1275, "Network Device Type" extensions of CHRP): there is no connector."""


class LogicalLan(VioDevice):
    """A network device.

    Options: `net`, what it is connected to, as `--net` says it; `mac`, its address, made from the VM's name and the unit address
    when not given; `pcap`, a file that gets every frame.

    Raises BusError for a network that there cannot be; begin() does when what it needs is not there.
    """

    kind = "l-lan"
    node_name = "l-lan"
    device_type = "network"
    compatible = "IBM,l-lan"
    option_names = frozenset({"net", "mac", "pcap"})
    signal_mask = 1
    has_dma = True

    def __init__(self, vm: Vm, unit_address: int, options: Mapping[str, str]) -> None:
        super().__init__(vm, unit_address, options)
        if not options.get("net"):
            raise BusError(f"{self.name}: it has no net", "give it one, such as net=user")
        try:
            self.net = parse_net(options["net"], options.get("mac", ""), options.get("pcap", ""))
        except WireError as error:
            raise BusError(f"{self.name}: {error.problem.what}", error.problem.remedy) from error
        self.configured_mac = self.net.mac or default_mac(vm.name, unit_address)
        self.mac = self.configured_mac
        self.filters = Filters()
        self.attributes = OFFERED
        self.receiver: Receiver | None = None
        """None: the guest has not opened the device."""
        self._has_room = True
        """For more buffers than may be under way posted."""
        self._firmware: FirmwarePort | None = None
        """None: the firmware has not asked for frames, or another has the device now."""
        self._connection: Connection | None = None
        self._left: Sequence[state_pb2.LanBuffer] | None = None
        """Not None: guest memory has buffers that another process was given; and these, which have no slot there."""
        self._recovery: asyncio.Task[None] | None = None
        self._changes = asyncio.Lock()
        """The device is being opened or closed."""
        self._lost = 0
        """Frames for which there was no buffer, of receivers that are closed."""

    def properties(self) -> Sequence[trap_pb2.TreeProperty]:
        """Its address, for which firmware has another name, and what it can do for the guest."""
        return (
            trap_pb2.TreeProperty(name="local-mac-address", value=self.configured_mac),
            trap_pb2.TreeProperty(name="mac-address", value=self.configured_mac),
            cells_property("ibm,mac-address-filters", MAX_FILTERS),
            cells_property("ibm,illan-options", 0),
            cells_property("address-bits", 8 * MAC_BYTES),
            trap_pb2.TreeProperty(name="supported-network-types", value=NETWORK_TYPES),
        )

    # The host's side.

    @property
    def counters(self) -> Counters:
        """What went over the wire since this process has the device."""
        return self._connection.wire.counters if self._connection is not None else Counters()

    @property
    def unbuffered(self) -> int:
        """Frames that the guest had no buffer for since it has opened the device."""
        return self.receiver.dropped if self.receiver is not None else 0

    def describe(self) -> vio_bus_pb2.VioDevice:
        """See VioDevice."""
        found, counters = super().describe(), self.counters
        lost = self._lost + (0 if self.receiver is None else self.receiver.lost)
        found.network.CopyFrom(
            vio_bus_pb2.Network(
                place="" if self._connection is None else self._connection.wire.name,
                mac=self.mac,
                is_open=self.receiver is not None,
                sent=vio_bus_pb2.FrameCounters(frames=counters.sent, bytes=counters.sent_bytes, dropped=counters.sent_dropped),
                received=vio_bus_pb2.FrameCounters(
                    frames=counters.received, bytes=counters.received_bytes, dropped=counters.received_dropped + lost
                ),
            )
        )
        return found

    async def begin(self) -> None:
        """See VioDevice: the wire is opened."""
        self._connection = Connection(self.vm, self.net, self.name, self._receive)
        self._change_offload()
        if self.vm.moved:
            self._connection.take_over()
        else:
            await self._connection.open()

    async def finish(self) -> None:
        """See VioDevice: the wire is closed."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    def attached(self) -> None:
        """See VioDevice: what another process was doing goes on, and a save is over."""
        self.resumed()

    def close(self) -> None:
        """See VioDevice."""
        self.close_firmware_port()
        if self._recovery is not None:
            self._recovery.cancel()
        if self.receiver is not None:
            self.receiver.cancel()

    def _receive(self, frame: bytes) -> bool:
        receiver, destination = self.receiver, frame[:MAC_BYTES]
        if receiver is None:
            if self._firmware is not None and (destination == self.configured_mac or is_group(destination)):
                self._firmware.put(frame)
            return True
        return receiver.receive(frame) if self.filters.accepts(destination, self.mac) else True

    def _wire_has_room(self) -> None:
        if self._connection is not None:
            self._connection.wire.resume()

    def _signal(self) -> None:
        self.vm.interrupt(self.interrupt_source)

    def _make_receiver(self, registered: Registration) -> Receiver:
        assert self.window is not None
        receiver = Receiver(self.window, registered, self._signal, self._wire_has_room)
        receiver.offload = self._offload()
        return receiver

    def _offload(self) -> Offload:
        """What the guest has turned on, on this wire."""
        checks = bool(self.attributes & CHECKSUMS)
        merges = self.attributes & (CHECKSUMS | LARGE_SEND_ENABLED) == CHECKSUMS | LARGE_SEND_ENABLED
        return Offload(checks, merges, self._connection is not None and self._connection.wire.ends_tcp)

    def _change_offload(self) -> None:
        if self.receiver is not None:
            self.receiver.offload = self._offload()

    # The guest's side.

    async def ready(self) -> Receiver | None:
        """Return what the guest has opened, once it is known what another process left; None: the device is closed."""
        if self._recovery is not None:
            await asyncio.wait((self._recovery,))
        return self.receiver

    async def open(self, registered: Registration, mac: bytes) -> int:
        """Begin to receive. Returns r3 of H_REGISTER_LOGICAL_LAN."""
        async with self._changes:
            if await self.ready() is not None:
                return H.RESOURCE
            receiver = self._make_receiver(registered)
            try:
                await receiver.clear_pages()
            except DmaError:
                return H.PARAMETER
            self.receiver, self._has_room = receiver, True
            self.close_firmware_port()
            self.mac = mac if is_own_address(mac) else self.configured_mac
            self.vm.inventory_changed()
            self._wire_has_room()
            return H.SUCCESS

    async def free(self) -> int:
        """Touch guest memory no more. Returns r3 of H_FREE_LOGICAL_LAN."""
        async with self._changes:
            if await self.ready() is None:
                return H.RESOURCE
            await self._end_reception()
            self.mac = self.configured_mac
            self.vm.inventory_changed()
            return H.SUCCESS

    async def _end_reception(self) -> None:
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            self._lost += receiver.lost
            await receiver.close()
            self._wire_has_room()  # What waits there is not for the next who opens the device.

    async def send(self, descriptors: Sequence[Descriptor], mss: int) -> int:
        """Send a frame of several parts. Returns r3 of H_SEND_LOGICAL_LAN."""
        if await self.ready() is None or self._connection is None or self.window is None:
            return H.DROPPED
        pieces = [Piece(each.ioba, each.length) for each in takewhile(lambda each: each.is_valid, descriptors)]
        total = sum(piece.length for piece in pieces)
        if total > MAX_SEND:
            return H.RESOURCE
        if total < MIN_FRAME:
            return H.PARAMETER if total else H.SUCCESS
        try:
            frame = (await self.window.gather(pieces)).load()
        except DmaError:
            return H.PARAMETER
        return self.send_frame(frame, descriptors[0].flags, mss)

    def send_frame(self, frame: bytes, flags: int, mss: int) -> int:
        """Send a frame, with the flags of its first descriptor. Returns r3 of H_SEND_LOGICAL_LAN."""
        if self.receiver is None or self._connection is None:
            return H.DROPPED
        wire = self._connection.wire
        if wire.ends_tcp and len(frame) <= MAX_WHOLE:
            wire.send(frame)
        elif flags & LARGE_SEND:
            for segment in segments(frame, mss):
                wire.send(segment)
        else:
            wire.send(with_checksum(frame) if flags & NO_CHECKSUM else frame)
        return H.SUCCESS

    def control_groups(self, flags: int, mac: bytes) -> int:
        """Change the filters. Returns r3 of H_MULTICAST_CTRL."""
        before = self.filters.status, set(self.filters.groups)
        result = self.filters.control(flags, mac)
        if (self.filters.status, self.filters.groups) != before:
            self.vm.inventory_changed()
        return result

    def change_mac(self, mac: bytes) -> int:
        """Take another address. Returns r3 of H_CHANGE_LOGICAL_LAN_MAC."""
        if not is_own_address(mac):
            return H.PARAMETER
        self.mac = mac
        self.vm.inventory_changed()
        return H.SUCCESS

    def change_attributes(self, reset: int, set_: int) -> int:
        """Turn attributes off and on. Returns r3 of H_ILLAN_ATTRIBUTES."""
        if (reset | set_) & ~SETTABLE or reset & set_:
            return H.PARAMETER
        attributes = self.attributes & ~reset | set_
        if attributes != self.attributes:
            self.attributes = attributes
            self._change_offload()
            self.vm.inventory_changed()
        return H.SUCCESS

    @property
    def takes_posted_buffers(self) -> bool:
        """Whether all buffers find room that the guest may give without waiting for an answer."""
        return self.receiver is not None and self._has_room

    def buffer_added(self) -> None:
        """Look whether there is still room, or room again."""
        if self.receiver is not None:
            has_room = self.receiver.buffers.has_room(POSTED_BUFFERS if self._has_room else 2 * POSTED_BUFFERS)
            if has_room != self._has_room:
                self._has_room = has_room
                self.vm.inventory_changed()

    # The firmware's side.

    async def firmware_port(self) -> FirmwarePort | None:
        """Return what keeps frames for the firmware, from now on at least; None: the guest has opened the device."""
        if await self.ready() is not None:
            return None
        if self._firmware is None:
            self._firmware = FirmwarePort()
        return self._firmware

    def close_firmware_port(self) -> None:
        """Keep no frames for the firmware any more."""
        if self._firmware is not None:
            self._firmware.close()
            self._firmware = None

    def send_for_firmware(self, frame: bytes) -> None:
        """Send a frame, or drop it."""
        if self._connection is not None:
            self._connection.wire.send(frame)

    # The machine.

    def reset(self) -> None:
        """See VioDevice."""
        self.close_firmware_port()
        self.mac, self.filters, self.attributes = self.configured_mac, Filters(), OFFERED
        self.vm.inventory_changed()

    async def stop(self) -> None:
        """See VioDevice."""
        async with self._changes:
            await self.ready()
            await self._end_reception()

    async def drain(self) -> None:
        """See VioDevice. What arrives from now on waits, or is lost."""
        receiver = await self.ready()
        if receiver is not None:
            await receiver.pause()

    def resumed(self) -> None:
        """See VioDevice."""
        if self._left is not None and self.receiver is not None:
            self._recovery = asyncio.get_running_loop().create_task(self._recover(self.receiver, self._left))
            self._left = None
        elif self.receiver is not None:
            self.receiver.resume()

    async def _recover(self, receiver: Receiver, left: Sequence[state_pb2.LanBuffer]) -> None:
        """Go on with what another process left in guest memory and in its state."""
        await receiver.recover()
        for buffer in left:
            receiver.buffers.found(NO_SLOT, buffer.ioba, buffer.length)
        self._recovery = None
        receiver.resume()

    def _state(self) -> state_pb2.LanState:
        registered = None if self.receiver is None else self.receiver.registered
        return state.save(registered, self.mac, self.filters, self.attributes)

    def save(self) -> bytes:
        """See VioDevice."""
        saved = self._state()
        if self.receiver is not None:
            saved.buffers.extend(
                state_pb2.LanBuffer(ioba=each.ioba, length=each.length) for each in self.receiver.buffers if each.slot == NO_SLOT
            )
        return saved.SerializeToString(deterministic=True)

    def restore(self, data: bytes) -> None:
        """See VioDevice."""
        self.remember(data)

    def remembered(self) -> bytes:
        """See VioDevice."""
        is_initial = (
            self.receiver is None and self.filters.is_initial and self.attributes == OFFERED and self.mac == self.configured_mac
        )
        return b"" if is_initial else self._state().SerializeToString(deterministic=True)

    def remember(self, data: bytes) -> None:
        """See VioDevice. What stands in guest memory is read once there is a connection."""
        saved = state.parse(data, self.name)
        self.mac, self.attributes = bytes(saved.mac), saved.attributes & SETTABLE | OFFERED
        self.filters = state.filters(saved)
        registered = state.registration(saved)
        self.receiver = None if registered is None else self._make_receiver(registered)
        self._left = None if self.receiver is None else list(saved.buffers)
