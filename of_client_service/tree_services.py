# SPDX-License-Identifier: GPL-2.0-or-later
"""Client services about the device tree (IEEE 1275 6.3.2.2)."""

from __future__ import annotations

from of_client_service.client_interface import FAILED, MAX_NAME, MAX_PATH, ClientCall, ClientInterface, ClientService
from of_client_service.device_path import resolve
from of_client_service.device_tree import MAX_PROPERTY_BYTES, TreeFullError

FOUND, NO_MORE = 1, 0
INITRD_BOUNDS = ("linux,initrd-start", "linux,initrd-end")


async def _finddevice(of: ClientInterface, call: ClientCall) -> int:
    found = resolve(of.tree.root, await of.string(call.arguments[0], MAX_PATH))
    return FAILED if found is None else found.package.phandle


def _peer(of: ClientInterface, call: ClientCall) -> int:
    if call.arguments[0] == 0:
        return of.tree.root.phandle
    package = of.tree.package(call.arguments[0])
    return package.sibling.phandle if package and package.sibling else 0


def _child(of: ClientInterface, call: ClientCall) -> int:
    package = of.tree.package(call.arguments[0])
    return package.children[0].phandle if package and package.children else 0


def _parent(of: ClientInterface, call: ClientCall) -> int:
    package = of.tree.package(call.arguments[0])
    return package.parent.phandle if package and package.parent else 0


async def _property(of: ClientInterface, phandle: int, name_at: int) -> bytes | None:
    package = of.tree.package(phandle)
    return None if package is None else package.get(await of.string(name_at, MAX_NAME))


async def _getproplen(of: ClientInterface, call: ClientCall) -> int:
    value = await _property(of, *call.arguments)
    return FAILED if value is None else len(value)


async def _getprop(of: ClientInterface, call: ClientCall) -> int:
    phandle, name, buffer, length = call.arguments
    value = await _property(of, phandle, name)
    if value is None:
        return FAILED
    await of.give(buffer, value[:length])
    return len(value)


async def _nextprop(of: ClientInterface, call: ClientCall) -> int:
    phandle, previous, buffer = call.arguments
    package = of.tree.package(phandle)
    if package is None:
        return FAILED
    try:
        name = package.following(await of.string(previous, MAX_NAME) if previous else "")
    except KeyError:
        return FAILED
    await of.give(buffer, (name or "").encode("latin-1") + b"\0")
    return NO_MORE if name is None else FOUND


async def _setprop(of: ClientInterface, call: ClientCall) -> int:
    phandle, name_at, buffer, length = call.arguments
    package = of.tree.package(phandle)
    if package is None or length > MAX_PROPERTY_BYTES:
        return FAILED
    name = await of.string(name_at, MAX_NAME)
    if name in ("phandle", "linux,phandle") or (package is of.chosen and name in INITRD_BOUNDS and length not in (4, 8)):
        return FAILED
    try:
        of.tree.set(package, name, await of.take(buffer, length))
    except TreeFullError:
        return FAILED
    return length


async def _canon(of: ClientInterface, call: ClientCall) -> int:
    specifier, buffer, length = call.arguments
    found = resolve(of.tree.root, await of.string(specifier, MAX_PATH))
    return FAILED if found is None else await _give_text(of, found.canonical, buffer, length)


async def _package_to_path(of: ClientInterface, call: ClientCall) -> int:
    phandle, buffer, length = call.arguments
    package = of.tree.package(phandle)
    return FAILED if package is None else await _give_text(of, package.path, buffer, length)


async def _instance_to_path(of: ClientInterface, call: ClientCall) -> int:
    ihandle, buffer, length = call.arguments
    instance = of.instance(ihandle)
    return FAILED if instance is None else await _give_text(of, instance.path, buffer, length)


def _instance_to_package(of: ClientInterface, call: ClientCall) -> int:
    instance = of.instance(call.arguments[0])
    return FAILED if instance is None else instance.package.phandle


async def _give_text(of: ClientInterface, text: str, buffer: int, length: int) -> int:
    """Store text, cut to length, with a NUL where there is room; return the whole length without the NUL."""
    data = text.encode("latin-1")
    await of.give(buffer, (data + b"\0")[:length])
    return len(data)


SERVICES = (
    ClientService("peer", _peer, 1, 1, "6.3.2.2"),
    ClientService("child", _child, 1, 1, "6.3.2.2"),
    ClientService("parent", _parent, 1, 1, "6.3.2.2"),
    ClientService("instance-to-package", _instance_to_package, 1, 1, "6.3.2.2"),
    ClientService("getproplen", _getproplen, 2, 1, "6.3.2.2"),
    ClientService("getprop", _getprop, 4, 1, "6.3.2.2", note="returns the whole length, however much fits the buffer"),
    ClientService("nextprop", _nextprop, 3, 1, "6.3.2.2", note="names may be longer than 31 characters, as PAPR's are"),
    ClientService("setprop", _setprop, 4, 1, "6.3.2.2", note="64 KiB a property, 1 MiB in all; phandles stay as they are"),
    ClientService("canon", _canon, 3, 1, "6.3.2.2"),
    ClientService("finddevice", _finddevice, 1, 1, "6.3.2.2"),
    ClientService("instance-to-path", _instance_to_path, 3, 1, "6.3.2.2"),
    ClientService("package-to-path", _package_to_path, 3, 1, "6.3.2.2"),
)
