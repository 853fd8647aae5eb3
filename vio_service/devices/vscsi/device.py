# SPDX-License-Identifier: GPL-2.0-or-later
"""The adapter (LoPAPR 17.2.6): its queue carries the addresses of information units, which are in the guest's memory.

A guest greets, asks for the adapter's description with a datagram, logs in, and then has as many requests under way as the login
allows, and as responses give back. SLOF does without datagrams and login: commands are taken from the first entry on. A response
is written over its request; the entry that tells of it carries the request's tag.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

import structlog

from splitvisor.backend import Vm
from splitvisor.backend.vio import (
    COMMAND,
    INITIALIZE,
    INITIALIZED,
    PAGE_BYTES,
    BusError,
    CrqDevice,
    DmaError,
    cells_property,
    crq,
)
from splitvisor.declarations.state import StateError, parse_state
from splitvisor.process.eager import eager_task
from splitvisor.rpc import scsi_state_pb2, state_pb2, trap_pb2, vio_bus_pb2
from splitvisor.scsi import state as scsi_state
from splitvisor.scsi.cd_unit import CdUnit
from splitvisor.scsi.codes import Status
from splitvisor.scsi.command import Initiator
from splitvisor.scsi.target import Target
from vio_service.devices.vscsi import datagrams, luns
from vio_service.devices.vscsi.datagrams import Kind, MadStatus
from vio_service.devices.vscsi.description import describe_disks
from vio_service.devices.vscsi.information import (
    IU_BYTES,
    TAG_BYTES,
    Opcode,
    login_response,
    parse_command,
    parse_task,
    response,
)
from vio_service.devices.vscsi.parking import Parking, Request
from vio_service.devices.vscsi.requests import Requests
from vio_service.devices.vscsi.transfer import MAX_TRANSFER
from vio_service.devices.vscsi.units import OPTIONS, Units

REQUESTS = 128
"""How many commands a guest may have under way."""
MAX_UNDER_WAY = 2 * REQUESTS
"""Requests of all kinds at once: those of a guest that keeps to its limit, and some for one that does not quite."""
AT_ONCE = 32
"""Requests of one turn that are begun as soon as they are there, and so often end; more wait until others had their turn."""
WAIT_FOR_LOCK_S = 5.0
"""How long the adapter of a VM that moves here waits for its images."""
STATE_VERSION = 1
_ENTRY = struct.Struct(">BBBBHHQ")
"""Of the queue: valid, format, reserved, status, timeout, length of the IU, its address; back: its tag."""
_SRP, _MAD = 1, 2
"""Formats of entries."""
_FAILED = 0x10
"""Status of an entry: the adapter could not read or write the IU."""
_TAG_AT = 8
_NO_TAG = bytes(TAG_BYTES)

log = structlog.get_logger()


class VScsi(CrqDevice):
    """A virtual SCSI adapter."""

    kind = "v-scsi"
    node_name = "v-scsi"
    device_type = "vscsi"
    compatible = "IBM,v-scsi"
    option_names = OPTIONS
    pauses = True

    def __init__(self, vm: Vm, unit_address: int, options: Mapping[str, str]) -> None:
        self.units = Units(options, f"{vm.name} {unit_address:x}", f"{self.kind} at {unit_address:#x}")
        super().__init__(vm, unit_address, options)
        self.target = Target(luns.reported)
        self._initiator = Initiator(vm.name)
        self._requests = Requests(self.target, self._initiator)
        self.parking = Parking(self.target, partial(vm.machine_action, trap_pb2.MACHINE_ACTION_KIND_PAUSE))
        self._logged_in = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun_at_once = 0
        """Requests, in this turn."""
        self._is_handed_over = False
        self._saved: scsi_state_pb2.ScsiTargetState | None = None
        """Of a restored device, or of its drives in another process, until its units are there."""
        self._drives: Sequence[CdUnit] = ()
        self._known: Sequence[object] = ()
        """What cpu_service remembers of the drives."""

    # Its life.

    def properties(self) -> Sequence[trap_pb2.TreeProperty]:
        """See VioDevice: how firmware names units below the adapter, by a LUN of 64 bits."""
        return (cells_property("#address-cells", 2), cells_property("#size-cells", 0))

    def describe(self) -> vio_bus_pb2.VioDevice:
        """See VioDevice."""
        found = super().describe()
        found.disks.extend(describe_disks(self.units, self.target))
        return found

    async def begin(self) -> None:
        """See VioDevice: open the images."""
        await self.units.open(self.target, WAIT_FOR_LOCK_S if self.vm.moved else 0.0, self.parking.wait)
        saved, self._saved = self._saved, None
        if saved is not None:
            try:
                scsi_state.restore(self.target, saved)
            except scsi_state.TargetStateError as error:
                raise BusError(f"{self.name}: {error.problem.what}", error.problem.remedy) from error
        self._drives = [unit for unit in self.target.units.values() if isinstance(unit, CdUnit)]

    async def change_medium(self, drive: str, medium: str, *, force: bool) -> None:
        """See VioDevice. Whoever asks may go away; the change is completed."""
        await asyncio.shield(self._start(self._change_medium(drive, medium, force=force)))

    async def _change_medium(self, drive: str, medium: str, *, force: bool) -> None:
        self.options[drive] = await self.units.change(self.target, drive, medium, force=force)
        self._known = self._drive_states()
        self.vm.inventory_changed()

    async def finish(self) -> None:
        """See VioDevice: close the images."""
        await self.units.close()

    async def drain(self) -> None:
        """See VioDevice: end every request, and let go of the images, which another process may take with the state.

        What waits for an operator is set aside, and done again later.
        """
        self.parking.save()
        while self._tasks:
            await asyncio.wait(self._tasks)
        try:
            await self.units.hand_over()
        except OSError as error:
            raise StateError(f"{self.name}: its disks cannot be flushed: {error}") from error
        self._is_handed_over = True

    def resumed(self) -> None:
        """See VioDevice: take the images back. Commands wait until then: a disk that was handed over is busy."""
        again = self.parking.saved()
        if self._is_handed_over or again:
            handed_over, self._is_handed_over = self._is_handed_over, False
            self._start(self._take_back(again, handed_over=handed_over))

    async def _take_back(self, again: Sequence[Request], *, handed_over: bool) -> None:
        for error in await self.units.take_back() if handed_over else ():
            log.error("a disk is not taken back: another process has it", device=self.name, reason=str(error))
        for request in again:
            self._begin_request(request)

    def continued(self) -> None:
        """See VioDevice: transfers that failed are tried again."""
        self.parking.go_on()

    async def stop(self) -> None:
        """See VioDevice. The units come out as from a reset of the target, with a transfer that does not end, too."""
        began = asyncio.get_running_loop().time()
        await super().stop()
        left = began + crq.STOP_S - asyncio.get_running_loop().time()
        if not await self.target.reset(max(0.0, left)):
            log.error("a disk is reset while a transfer does not end; is its server or file system away?", device=self.name)
        self._remember_drives()

    # The queue.

    def opened(self) -> None:
        """See CrqDevice."""
        self._logged_in = False

    async def closed(self) -> None:
        """See CrqDevice: abort what is under way."""
        self.parking.forget()
        await self.target.nexus_lost(self._initiator)
        while self._tasks:
            await asyncio.wait(self._tasks)

    def received(self, entry: bytes) -> None:
        """See CrqDevice."""
        valid, kind, _, _, _, length, ioba = _ENTRY.unpack(entry)
        if entry == INITIALIZE:
            self._logged_in = False
            self.send(INITIALIZED)
        elif valid == COMMAND and kind in (_SRP, _MAD):
            if len(self._tasks) >= MAX_UNDER_WAY:
                self._tell(kind, _FAILED, 0, _NO_TAG)
            else:
                self._begin_request(Request(kind, ioba, min(length, IU_BYTES)))

    def _begin_request(self, request: Request) -> None:
        if not self.queue_open:
            return
        if not self._begun_at_once:
            self.vm.soon(self._begin_anew)
        self._begun_at_once += 1
        self._start(self._serve(request, at_once=self._begun_at_once <= AT_ONCE))

    def _begin_anew(self) -> None:
        self._begun_at_once = 0

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = eager_task(work)
        if not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return task

    async def _serve(self, request: Request, *, at_once: bool) -> None:
        """Answer one request."""
        kind, ioba, length = request
        tag = _NO_TAG
        task = self.parking.began(request)
        try:
            if not at_once:
                await asyncio.sleep(0)
            iu = await self._read(ioba, length)
            tag = iu[_TAG_AT : _TAG_AT + TAG_BYTES].ljust(TAG_BYTES, b"\0")
            if kind == _MAD:
                status = await self._datagram(iu)
                answer: bytes | None = status.to_bytes(2, "big")
                ioba, length = ioba + datagrams.STATUS_AT, len(iu)
            else:
                answer = await self._request(iu, tag)
                length = 0 if answer is None else len(answer)
            self.parking.done(task)
            self._remember_drives()
            if answer is not None and self.queue_open:
                assert self.window is not None
                await self.window.write(ioba, answer)
                self._tell(kind, 0, length, tag)
        except DmaError as error:
            log.info("guest memory of a request cannot be reached", device=self.name, reason=str(error))
            self._tell(kind, _FAILED, 0, tag)
        finally:
            self.parking.done(task)

    def _tell(self, kind: int, status: int, length: int, tag: bytes) -> None:
        """Tell the guest that a request has its answer."""
        self.send(_ENTRY.pack(COMMAND, kind, 0, status, 0, length, int.from_bytes(tag, "big")))

    async def _read(self, ioba: int, length: int) -> bytes:
        """Return an IU. It may end at the end of what is mapped: guests state more than it has. Raises DmaError."""
        assert self.window is not None
        if not length:
            raise DmaError(f"the request at {ioba:#x} has no bytes")
        try:
            return await self.window.read(ioba, length)
        except DmaError:
            here = PAGE_BYTES - ioba % PAGE_BYTES
            if here >= length:
                raise
            return await self.window.read(ioba, here)

    async def _request(self, iu: bytes, tag: bytes) -> bytes | None:
        """Do what an IU of SRP asks. Returns its response, if it has one."""
        assert self.window is not None
        match iu[0]:
            case Opcode.COMMAND if (unit := parse_command(iu)) is not None:
                return await self._requests.run(unit, self.window)
            case Opcode.TASK_MANAGEMENT if (task := parse_task(iu)) is not None:
                return await self._requests.manage(task, tag)
            case Opcode.LOGIN_REQUEST:
                self._logged_in = True
                return login_response(tag, REQUESTS)
            case Opcode.INITIATOR_LOGOUT:
                self._logged_in = False
                await self.target.nexus_lost(self._initiator)
                return None
            case other:
                log.info("guest sent an information unit that there is not", device=self.name, opcode=hex(other))
                return response(tag, Status.CHECK_CONDITION)

    async def _datagram(self, data: bytes) -> MadStatus:
        """Do what a datagram asks."""
        assert self.window is not None
        datagram = datagrams.parse_datagram(data)
        if datagram is None:
            return MadStatus.FAILED
        try:
            match datagram.kind:
                case Kind.ADAPTER_INFORMATION:
                    information = datagrams.adapter_information(self.vm.name, MAX_TRANSFER)
                    await self.window.write(datagram.buffer, information[: datagram.length])
                case Kind.CAPABILITIES if datagram.length >= datagrams.CAPABILITIES_BYTES:
                    asked = await self.window.read(datagram.buffer, datagrams.CAPABILITIES_BYTES)
                    await self.window.write(datagram.buffer, datagrams.capabilities(asked))
                case _:
                    return MadStatus.NOT_SUPPORTED
        except DmaError:
            return MadStatus.FAILED
        return MadStatus.DONE

    # Its state.

    def _drive_states(self) -> Sequence[object]:
        """What a drive keeps of the guest, in a form that is quick to make and to compare."""
        return [
            (each.tray_open, each.event, *each.locks, *((name, *pending) for name, pending in each.attentions.items()))
            for each in self._drives
        ]

    def _remember_drives(self) -> None:
        """Have the next process know what the guest has done to its drives.

        Linux takes every unit attention of a drive, that of a new process too, for a change of the medium, and gives up a CD that
        is mounted. Disks need none of this.
        """
        if self._drives and (states := self._drive_states()) != self._known:
            self._known = states
            self.vm.inventory_changed()

    def remembered(self) -> bytes:
        """See VioDevice: the drives' part of the state."""
        if not any(each.attentions for each in self._drives):
            return b""
        state = state_pb2.VscsiState(version=STATE_VERSION, target=scsi_state.save(self.target, CdUnit))
        return state.SerializeToString(deterministic=True)

    def remember(self, data: bytes) -> None:
        """See VioDevice."""
        self._saved = parse_state(state_pb2.VscsiState, data, STATE_VERSION, self.name).target

    def save(self) -> bytes:
        """See VioDevice."""
        requests = (
            state_pb2.VscsiRequest(format=each.kind, ioba=each.ioba, length=each.length) for each in self.parking.set_aside
        )
        state = state_pb2.VscsiState(
            version=STATE_VERSION, logged_in=self._logged_in, target=scsi_state.save(self.target), requests=requests
        )
        return state.SerializeToString(deterministic=True)

    def restore(self, state: bytes) -> None:
        """See VioDevice. The units get theirs when they are there: begin() comes later."""
        saved = parse_state(state_pb2.VscsiState, state, STATE_VERSION, self.name)
        self._logged_in, self._saved = saved.logged_in, saved.target
        if len(saved.requests) > MAX_UNDER_WAY:
            raise StateError(
                f"{self.name}: its saved state has {len(saved.requests)} requests, at most {MAX_UNDER_WAY} are possible"
            )
        self.parking.restore([Request(each.format, each.ioba, min(each.length, IU_BYTES)) for each in saved.requests])
