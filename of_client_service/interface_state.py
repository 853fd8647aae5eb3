# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine's client interface as bytes, and back: the tree as its client sees it, open instances, claimed memory."""

from __future__ import annotations

import time

from of_client_service.claims import Claims
from of_client_service.client_interface import MAX_PATH, BootRequest, ClientInterface
from of_client_service.device_tree import MAX_GROWTH, DeviceTree
from of_client_service.disks.disk import restored_disk
from of_client_service.instances import Instance, Instances
from of_client_service.network.instance import NetworkInstance
from of_client_service.terminal import TerminalInstance
from splitvisor.backend import Vm
from splitvisor.declarations.state import StateError, parse_state
from splitvisor.rpc import state_pb2 as pb
from splitvisor.tree import fdt

VERSION = 1
MAX_UNREAD = 1 << 16
"""Bytes of input that an instance may keep; it takes 16 at a time, and only as long as its reader has room."""
MAX_BOOT_TEXT = 4096


def save(of: ClientInterface) -> bytes:
    """Return the state."""
    state = pb.ClientInterfaceState(
        version=VERSION,
        tree=of.tree.blob(),
        phandles=[package.phandle for package in of.tree.packages()],
        growth=of.tree.growth,
        claims=[edge for claimed in of.claims.ranges() for edge in claimed],
        instances=[_saved_instance(ihandle, instance) for ihandle, instance in of.instances.all()],
        last_ihandle=of.instances.last,
        milliseconds=int((time.monotonic() - of.started) * 1000),
    )
    if of.boot_request is not None:
        state.boot_request.path, state.boot_request.arguments = of.boot_request.path, of.boot_request.arguments
    return state.SerializeToString()


def restore(of: ClientInterface, data: bytes) -> None:
    """Give a new client interface a saved state. Raises StateError."""
    state = parse_state(pb.ClientInterfaceState, data, VERSION, "of_client_service")
    try:
        tree = DeviceTree(fdt.read(state.tree))
        tree.assign_phandles(state.phandles)
        if not abs(state.growth) <= MAX_GROWTH or len(state.claims) % 2:
            raise ValueError("its tree has grown too much, or a claim has no end")
        tree.growth = state.growth
        claims = Claims(of.vm.memory.size)
        claims.restore(list(zip(state.claims[::2], state.claims[1::2], strict=True)))
        instances = Instances()
        instances.restore([(saved.ihandle, _instance(of.vm, tree, saved)) for saved in state.instances], state.last_ihandle)
    except (ValueError, fdt.FdtError) as error:
        raise StateError(f"of_client_service: its state cannot be that of a guest: {error}") from error
    if max(len(state.boot_request.path), len(state.boot_request.arguments)) > MAX_BOOT_TEXT:
        raise StateError("of_client_service: its state asks to boot something of too many characters")
    of.tree, of.claims, of.instances = tree, claims, instances
    of.started = time.monotonic() - state.milliseconds / 1000
    if state.HasField("boot_request"):
        of.boot_request = BootRequest(state.boot_request.path, state.boot_request.arguments)


def _saved_instance(ihandle: int, instance: Instance) -> pb.InstanceState:
    state = pb.InstanceState(ihandle=ihandle, phandle=instance.package.phandle, path=instance.path)
    instance.save(state)
    return state


def _instance(vm: Vm, tree: DeviceTree, saved: pb.InstanceState) -> Instance:
    package = tree.package(saved.phandle)
    if package is None or len(saved.unread) > MAX_UNREAD or len(saved.path) > MAX_PATH:
        raise ValueError(f"instance {saved.ihandle} of a package that there is not, or with too much input")
    path = saved.path or package.path
    if saved.HasField("terminal"):
        return TerminalInstance(package, path, saved.terminal, saved.unread, after_return=saved.after_return)
    if saved.HasField("disk"):
        return restored_disk(vm, package, path, saved.disk)
    if saved.HasField("network"):
        return NetworkInstance(package, path, saved.network)
    return Instance(package, path)
