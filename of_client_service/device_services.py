# SPDX-License-Identifier: GPL-2.0-or-later
"""Client services that open and use devices (IEEE 1275 6.3.2.3), and call-method with the methods that packages have."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from of_client_service.architecture_support import negotiate
from of_client_service.client_interface import FAILED, MAX_NAME, MAX_PATH, ClientCall, ClientInterface, ClientService
from of_client_service.device_path import resolve
from of_client_service.device_tree import Package
from of_client_service.disks.disk import MAX_TRANSFER as DISK_TRANSFER
from of_client_service.disks.disk import DiskInstance
from of_client_service.disks.units import BLOCK_TYPE, is_adapter, report_luns
from of_client_service.instances import Instance
from of_client_service.openers import OPENERS, open_package
from splitvisor import firmware

NO_INSTANCE = 0
"""What open answers when it cannot open (IEEE 1275 6.3.2.3)."""
EXISTS, MISSING = 0, -1
SOUGHT = 0
MOST_BLOCKS = 0xFFFF_FFFF
"""What a cell holds: a larger disk says this of itself."""


async def _open(of: ClientInterface, call: ClientCall) -> int:
    found = resolve(of.tree.root, await of.string(call.arguments[0], MAX_PATH))
    instance = None if found is None else await open_package(of.vm, found)
    ihandle = None if instance is None else of.instances.add(instance)
    return NO_INSTANCE if ihandle is None else ihandle


def _close(of: ClientInterface, call: ClientCall) -> Sequence[int]:
    of.instances.close(call.arguments[0], call.trap)
    return ()


async def _read(of: ClientInterface, call: ClientCall) -> int:
    ihandle, buffer, length = call.arguments
    instance = of.instance(ihandle)
    return FAILED if instance is None else await _read_instance(of, instance, buffer, length)


async def _write(of: ClientInterface, call: ClientCall) -> int:
    ihandle, buffer, length = call.arguments
    instance = of.instance(ihandle)
    return FAILED if instance is None else await _write_instance(of, call, instance, buffer, length)


def _seek(of: ClientInterface, call: ClientCall) -> int:
    ihandle, high, low = call.arguments
    instance = of.instance(ihandle)
    return SOUGHT if instance is not None and instance.seek(high << 32 | low) else FAILED


async def _read_instance(of: ClientInterface, instance: Instance, buffer: int, length: int) -> int:
    count = await instance.read(of.vm, buffer, length)
    return FAILED if count is None else count


async def _write_instance(of: ClientInterface, call: ClientCall, instance: Instance, buffer: int, length: int) -> int:
    count = await instance.write(of.vm, call.trap, buffer, length)
    return FAILED if count is None else count


@dataclass(frozen=True)
class Method:
    """A method of packages. Its cells come as IEEE 1275 orders them: the top of the stack first."""

    name: str
    has: Callable[[Package], bool]
    function: Callable[[ClientInterface, ClientCall, Instance, Sequence[int]], Awaitable[Sequence[int] | None]]
    """Returns result cells, None when the method throws."""
    inputs: int


async def _method_read(of: ClientInterface, call: ClientCall, instance: Instance, stack: Sequence[int]) -> Sequence[int]:
    length, buffer = stack
    return (await _read_instance(of, instance, buffer, length),)


async def _method_write(of: ClientInterface, call: ClientCall, instance: Instance, stack: Sequence[int]) -> Sequence[int]:
    length, buffer = stack
    return (await _write_instance(of, call, instance, buffer, length),)


async def _method_client_architecture_support(
    of: ClientInterface, call: ClientCall, instance: Instance, stack: Sequence[int]
) -> Sequence[int]:
    return (await negotiate(of, stack[0]),)


async def _method_instantiate_rtas(
    of: ClientInterface, call: ClientCall, instance: Instance, stack: Sequence[int]
) -> Sequence[int] | None:
    base = stack[0]
    size = instance.package.number("rtas-size") or 0
    if size < len(firmware.RTAS_SHIM):
        return None
    of.vm.memory.check(base, size)
    await of.vm.memory.write(base, firmware.RTAS_SHIM)
    return (base,)


async def _method_seek(of: ClientInterface, call: ClientCall, instance: Instance, stack: Sequence[int]) -> Sequence[int]:
    high, low = stack
    return (SOUGHT if instance.seek(high << 32 | low) else FAILED,)


async def _method_report_luns(of: ClientInterface, call: ClientCall, instance: Instance, stack: Sequence[int]) -> Sequence[int]:
    return await report_luns(of.vm, instance.package.number("reg") or 0)


def _of_disk(
    value: Callable[[DiskInstance], int],
) -> Callable[[ClientInterface, ClientCall, Instance, Sequence[int]], Awaitable[Sequence[int] | None]]:
    """Return a method that answers with a number of an opened disk."""

    async def method(of: ClientInterface, call: ClientCall, instance: Instance, stack: Sequence[int]) -> Sequence[int] | None:
        return (value(instance),) if isinstance(instance, DiskInstance) else None

    return method


def _can_be_read(package: Package) -> bool:
    return package.text("device_type") in OPENERS


def _is_block(package: Package) -> bool:
    return package.text("device_type") == BLOCK_TYPE


METHODS = (
    Method("ibm,client-architecture-support", lambda package: package.parent is None, _method_client_architecture_support, 1),
    Method("instantiate-rtas", lambda package: package.path == "/rtas", _method_instantiate_rtas, 1),
    Method("read", _can_be_read, _method_read, 2),
    Method("write", _can_be_read, _method_write, 2),
    Method("seek", _is_block, _method_seek, 2),
    Method("block-size", _is_block, _of_disk(lambda disk: disk.medium.block_bytes), 0),
    Method("#blocks", _is_block, _of_disk(lambda disk: min(disk.blocks, MOST_BLOCKS)), 0),
    Method("max-transfer", _is_block, _of_disk(lambda disk: disk.medium.unit.max_transfer), 0),
    Method("vscsi-report-luns", is_adapter, _method_report_luns, 0),
)


async def _call_method(of: ClientInterface, call: ClientCall) -> Sequence[int]:
    if len(call.arguments) < 2:
        return (FAILED,)
    name = await of.string(call.arguments[0], MAX_NAME)
    instance, stack = of.instance(call.arguments[1]), call.arguments[2:]
    method = None if instance is None else _method(instance.package, name)
    if instance is None or method is None or len(stack) < method.inputs:
        return (FAILED,)
    results = await method.function(of, call, instance, stack[: method.inputs])
    return (FAILED,) if results is None else (0, *results)


async def _test_method(of: ClientInterface, call: ClientCall) -> int:
    package = of.tree.package(call.arguments[0])
    name = await of.string(call.arguments[1], MAX_NAME)
    return EXISTS if package is not None and _method(package, name) else MISSING


def _method(package: Package, name: str) -> Method | None:
    return next((method for method in METHODS if method.name == name and method.has(package)), None)


SERVICES = (
    ClientService("open", _open, 1, 1, "6.3.2.3"),
    ClientService("close", _close, 1, 0, "6.3.2.3"),
    ClientService(
        "read",
        _read,
        3,
        1,
        "6.3.2.3",
        note=f"terminals: -2 when nothing was typed; disks: {DISK_TRANSFER >> 20} MiB a call; networks: a frame, or -2",
    ),
    ClientService(
        "write",
        _write,
        3,
        1,
        "6.3.2.3",
        note="terminals: 4096 bytes a call, the count says how many; disks: whole blocks; networks: a frame",
    ),
    ClientService("seek", _seek, 3, 1, "6.3.2.3", note="terminals and networks cannot seek: -1"),
    ClientService("call-method", _call_method, None, None, "6.3.2.2", note="methods: " + ", ".join(m.name for m in METHODS)),
    ClientService("test-method", _test_method, 2, 1, "6.3.2.1"),
)
