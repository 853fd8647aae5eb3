# SPDX-License-Identifier: GPL-2.0-or-later
"""Client services that open and use devices (IEEE 1275 6.3.2.3), and call-method with the methods that packages have."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from of_client_service import terminal
from of_client_service.architecture_support import negotiate
from of_client_service.client_interface import FAILED, MAX_NAME, MAX_PATH, ClientCall, ClientInterface, ClientService
from of_client_service.device_path import resolve
from of_client_service.device_tree import Package
from of_client_service.instances import Instance
from splitvisor import firmware
from splitvisor.backend import Support

NO_INSTANCE = 0
"""What open answers when it cannot open (IEEE 1275 6.3.2.3)."""
EXISTS, MISSING = 0, -1


async def _open(of: ClientInterface, call: ClientCall) -> int:
    found = resolve(of.tree.root, await of.string(call.arguments[0], MAX_PATH))
    ihandle = None if found is None else of.instances.open(found.package)
    return NO_INSTANCE if ihandle is None else ihandle


def _close(of: ClientInterface, call: ClientCall) -> Sequence[int]:
    of.instances.close(call.arguments[0])
    return ()


async def _read(of: ClientInterface, call: ClientCall) -> int:
    ihandle, buffer, length = call.arguments
    instance = of.instance(ihandle)
    return FAILED if instance is None else await _read_terminal(of, instance, buffer, length)


async def _write(of: ClientInterface, call: ClientCall) -> int:
    ihandle, buffer, length = call.arguments
    instance = of.instance(ihandle)
    return FAILED if instance is None else await _write_terminal(of, call, instance, buffer, length)


def _seek(of: ClientInterface, call: ClientCall) -> int:
    return FAILED


async def _read_terminal(of: ClientInterface, instance: Instance, buffer: int, length: int) -> int:
    wanted = min(length, terminal.MAX_TRANSFER)
    if instance.terminal is None:
        return FAILED
    if not wanted:
        return 0
    of.vm.memory.check(buffer, wanted)  # before input is taken that could not be delivered
    data = await terminal.get(of.vm, instance, wanted)
    if not data:
        return terminal.NOTHING_TO_READ
    await of.vm.memory.write(buffer, data)
    return len(data)


async def _write_terminal(of: ClientInterface, call: ClientCall, instance: Instance, buffer: int, length: int) -> int:
    if instance.terminal is None:
        return FAILED
    data = await of.take(buffer, min(length, terminal.MAX_TRANSFER))
    terminal.put(call.trap, instance.terminal, data)
    return len(data)


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
    return (await _read_terminal(of, instance, buffer, length),)


async def _method_write(of: ClientInterface, call: ClientCall, instance: Instance, stack: Sequence[int]) -> Sequence[int]:
    length, buffer = stack
    return (await _write_terminal(of, call, instance, buffer, length),)


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


def _is_terminal(package: Package) -> bool:
    return package.text("device_type") == "serial"


METHODS = (
    Method("ibm,client-architecture-support", lambda package: package.parent is None, _method_client_architecture_support, 1),
    Method("instantiate-rtas", lambda package: package.path == "/rtas", _method_instantiate_rtas, 1),
    Method("read", _is_terminal, _method_read, 2),
    Method("write", _is_terminal, _method_write, 2),
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
    ClientService("read", _read, 3, 1, "6.3.2.3", note="terminals; -2 when nothing was typed"),
    ClientService("write", _write, 3, 1, "6.3.2.3", note="terminals; at most 4096 bytes a call, the count says how many"),
    ClientService("seek", _seek, 3, 1, "6.3.2.3", Support.PARTIAL, "terminals cannot seek: -1"),
    ClientService("call-method", _call_method, None, None, "6.3.2.2", note="methods: " + ", ".join(m.name for m in METHODS)),
    ClientService("test-method", _test_method, 2, 1, "6.3.2.1"),
)
