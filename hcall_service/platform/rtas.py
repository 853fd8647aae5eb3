# SPDX-License-Identifier: GPL-2.0-or-later
"""RTAS calls that belong to the machine as a whole (LoPAPR chapter 7): its clock, power, parameters and error reports.

Calls that touch a processor, an interrupt source or a device are declared by whoever owns that.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime

from hcall_service.platform.events import PlatformEvents
from splitvisor.backend import Call, Operand, Result, RtasCall, Session, Support, Vm
from splitvisor.declarations.guest_memory import GuestAddressError, GuestMemory
from splitvisor.papr.codes import RtasStatus
from splitvisor.rpc import trap_pb2 as pb

OS_TERM_BYTES = 256
"""Of the message of ibm,os-term, this much is kept."""
LIVE_INSERTION_DOMAIN = 0xFFFF_FFFF
"""The one power domain there is: what it feeds is never switched."""
FULL_POWER = 100

_SECOND = 10**9
_MEBIBYTE = 1 << 20

IdentityLookup = Callable[[str], Awaitable[bytes]]


class RtasSession(Session):
    """What these calls keep of one VM.

    Args:
        vm: the VM.
        identity: given its name, returns its UUID (16 bytes), or nothing when it has none.
        clock: the host's time in nanoseconds since 1970.
    """

    def __init__(self, vm: Vm, identity: IdentityLookup, clock: Callable[[], int] = time.time_ns) -> None:
        super().__init__(vm)
        self.identity = identity
        self.clock = clock
        self.clock_offset = 0
        """Nanoseconds by which the guest has set its clock off the host's. A reset leaves it: the clock has a battery."""
        self.events = PlatformEvents(vm)

    async def reset(self) -> None:
        """Forget what the system that ran before was to be told."""
        self.events.clear()

    async def attached(self) -> None:
        """See Session."""
        self.events.signal()


def get_time_of_day(session: RtasSession, _call: Call) -> Result:
    """get-time-of-day() -> status, year, month, day, hour, minute, second, nanosecond; UTC."""
    seconds, nanoseconds = divmod(session.clock() + session.clock_offset, _SECOND)
    date = datetime.fromtimestamp(seconds, UTC)
    return Result(returns=(RtasStatus.SUCCESS, *date.timetuple()[:6], nanoseconds))


def set_time_of_day(session: RtasSession, call: Call) -> int:
    """set-time-of-day(year, month, day, hour, minute, second, nanosecond): the clock runs on from there."""
    *fields, nanoseconds = call.arguments
    try:
        year, month, day, hour, minute, second = fields
        date = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except (ValueError, OverflowError):
        return RtasStatus.PARAMETER_ERROR
    # The calendar of get-time-of-day ends with the year 9999, and the clock must not run over that.
    if nanoseconds >= _SECOND or year >= 9999:
        return RtasStatus.PARAMETER_ERROR
    since_epoch = date - datetime(1970, 1, 1, tzinfo=UTC)
    session.clock_offset = (since_epoch.days * 86400 + since_epoch.seconds) * _SECOND + nanoseconds - session.clock()
    return RtasStatus.SUCCESS


def power_off(_session: RtasSession, call: Call) -> int:
    """power-off(mask of events that switch on again, high and low word): nothing here switches a machine on again."""
    call.machine_action(pb.MACHINE_ACTION_KIND_POWER_OFF, "RTAS power-off")
    return RtasStatus.SUCCESS


def system_reboot(_session: RtasSession, call: Call) -> int:
    """system-reboot()."""
    call.machine_action(pb.MACHINE_ACTION_KIND_RESET, "RTAS system-reboot")
    return RtasStatus.SUCCESS


async def _splpar_characteristics(session: RtasSession) -> bytes:
    vcpus, mebibytes = session.vm.vcpus, session.vm.memory.size // _MEBIBYTE
    return f"MaxEntCap={vcpus},DesMem={mebibytes},DesProcs={vcpus},MaxPlatProcs={vcpus}\0".encode()


async def _platform_diagnostics(_session: RtasSession) -> bytes:
    return b"\0"


async def _uuid(session: RtasSession) -> bytes:
    return await session.identity(session.vm.name)


SYSTEM_PARAMETERS: dict[int, Callable[[RtasSession], Awaitable[bytes]]] = {
    20: _splpar_characteristics,
    42: _platform_diagnostics,
    48: _uuid,
}
"""Parameters by token (LoPAPR 7.3, System Parameters Option); all read-only."""


async def get_system_parameter(session: RtasSession, call: Call) -> int:
    """ibm,get-system-parameter(token, buffer, bytes): the buffer gets a 16-bit length and as much of the value as fits."""
    token, buffer, size = call.arguments
    parameter = SYSTEM_PARAMETERS.get(token)
    if parameter is None:
        return RtasStatus.PARAMETER_ERROR
    if size < 2:
        return RtasStatus.SYSTEM_PARAMETER_ERROR
    value = await parameter(session)
    try:
        await session.vm.memory.write(buffer, (struct.pack(">H", len(value)) + value)[:size])
    except GuestAddressError:
        return RtasStatus.SYSTEM_PARAMETER_ERROR
    return RtasStatus.SUCCESS


def set_system_parameter(_session: RtasSession, call: Call) -> int:
    """ibm,set-system-parameter(token, buffer): the parameters that exist belong to the platform."""
    return RtasStatus.NOT_AUTHORIZED if call.arguments[0] in SYSTEM_PARAMETERS else RtasStatus.PARAMETER_ERROR


def event_scan(_session: RtasSession, _call: Call) -> int:
    """event-scan(event mask, critical, buffer, bytes): never an event; those that there are come with an interrupt."""
    return RtasStatus.NO_ERRORS_FOUND


async def check_exception(session: RtasSession, call: Call) -> int:
    """check-exception(vector, information, event mask, critical, buffer, bytes[, more information]): fetch an event.

    The oldest one of the mask's classes is copied to the buffer as far as it fits. When more of its kind wait, the source
    interrupts again.
    """
    if len(call.arguments) not in (6, 7):
        return RtasStatus.PARAMETER_ERROR
    mask, _critical, buffer, size = call.arguments[2:6]
    session.vm.memory.check(buffer, size)
    event = session.events.take(mask)
    if event is None:
        return RtasStatus.NO_ERRORS_FOUND
    await session.vm.memory.write(buffer, event.entry[:size])
    if session.events.source(event.event_class) is not None:
        call.interrupt(event.source)
    return RtasStatus.SUCCESS


async def _read_message(memory: GuestMemory, address: int) -> bytes:
    """The string at address as far as it is in RAM, cut to OS_TERM_BYTES."""
    with suppress(GuestAddressError, ValueError):
        return await memory.read_string(address, OS_TERM_BYTES)
    available = min(OS_TERM_BYTES, memory.size - address)
    return await memory.read(address, available) if available > 0 else b""


async def os_term(session: RtasSession, call: Call) -> int:
    """ibm,os-term(message): the operating system has failed and says why. A bad message must not keep the report away."""
    message = await _read_message(session.vm.memory, call.arguments[0])
    text = "".join(character if character.isprintable() else " " for character in message.decode("ascii", "replace")).strip()
    call.machine_action(pb.MACHINE_ACTION_KIND_CRASH, f"the guest reported its end: {text or 'no message'}")
    return RtasStatus.SUCCESS


def power_level(_session: RtasSession, call: Call) -> Result:
    """set-power-level(domain, level) and get-power-level(domain) -> status, level: always full."""
    if call.arguments[0] != LIVE_INSERTION_DOMAIN:
        return Result(returns=(RtasStatus.PARAMETER_ERROR, 0))
    return Result(returns=(RtasStatus.SUCCESS, FULL_POWER))


_EVENTS = "LoPAPR 7.3, Error and Event Reporting"

RTAS_CALLS: tuple[RtasCall, ...] = (
    RtasCall("get-time-of-day", get_time_of_day, "LoPAPR 7.3, Time of Day", arguments=0, returns=8),
    RtasCall("set-time-of-day", set_time_of_day, "LoPAPR 7.3, Time of Day", arguments=7, returns=1),
    RtasCall("power-off", power_off, "LoPAPR 7.3, Power Control", arguments=2, returns=1, note="the mask is not looked at"),
    RtasCall("system-reboot", system_reboot, "LoPAPR 7.3, Reboot", arguments=0, returns=1),
    RtasCall(
        "ibm,get-system-parameter",
        get_system_parameter,
        "LoPAPR 7.3, System Parameters Option",
        arguments=3,
        returns=1,
        support=Support.PARTIAL,
        note="parameters 20, 42 and 48",
    ),
    RtasCall(
        "ibm,set-system-parameter",
        set_system_parameter,
        "LoPAPR 7.3, System Parameters Option",
        arguments=2,
        returns=1,
        support=Support.REFUSED,
        note="all parameters are read-only",
    ),
    RtasCall("event-scan", event_scan, _EVENTS, arguments=4, returns=1, note="every event comes with an interrupt"),
    RtasCall("check-exception", check_exception, _EVENTS, arguments=None, returns=1, note="hotplug events"),
    RtasCall(
        "ibm,os-term",
        os_term,
        "LoPAPR 7.3, ibm,os-term",
        arguments=1,
        returns=1,
        operands=(Operand(argument=0, size=OS_TERM_BYTES, string=True),),
    ),
    RtasCall("set-power-level", power_level, "LoPAPR 7.3, Power Control", arguments=2, returns=2),
    RtasCall("get-power-level", power_level, "LoPAPR 7.3, Power Control", arguments=1, returns=2),
)
