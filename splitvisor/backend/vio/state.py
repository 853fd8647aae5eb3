# SPDX-License-Identifier: GPL-2.0-or-later
"""The saved state of a VIO bus: its devices, each with the state of its kind, and its slots."""

from __future__ import annotations

from splitvisor.backend.vio.bus import VioBus
from splitvisor.backend.vio.connector import State
from splitvisor.backend.vio.crq import CrqDevice
from splitvisor.backend.vio.device import BusError, VioDevice
from splitvisor.declarations.state import StateError, parse_state
from splitvisor.rpc import state_pb2, trap_pb2

VERSION = 1


def save(bus: VioBus) -> bytes:
    """Return the state of a bus."""
    connectors = [connector.save() for connector in bus.connectors]
    untouched = state_pb2.VioConnectorState(state=State.UNUSABLE)
    state = state_pb2.VioState(
        version=VERSION,
        devices=[_save_device(device) for device in bus.devices.values()],
        connectors=[connector for connector in connectors if _without_index(connector) != untouched],
    )
    return state.SerializeToString(deterministic=True)


def _without_index(connector: state_pb2.VioConnectorState) -> state_pb2.VioConnectorState:
    copy = state_pb2.VioConnectorState()
    copy.CopyFrom(connector)
    copy.ClearField("index")
    return copy


def _save_device(device: VioDevice) -> state_pb2.VioDeviceState:
    spec = trap_pb2.DeviceSpec(kind=device.kind, unit_address=device.unit_address, options=device.options)
    state = state_pb2.VioDeviceState(spec=spec, state=device.save())
    if isinstance(device, CrqDevice):
        state.queue.CopyFrom(device.save_queue())
    return state


def restore(bus: VioBus, data: bytes) -> None:
    """Restore a saved state to a new session's bus: its devices become the saved ones.

    Raises StateError; the session is then unusable.
    """
    state = parse_state(state_pb2.VioState, data, VERSION, bus.owner)
    configured, bus.devices = bus.devices, {}
    for saved in state.devices:
        address, kind = saved.spec.unit_address, bus.kinds.get(saved.spec.kind)
        what = f"{saved.spec.kind} at {address:#x}"
        if kind is None:
            raise StateError(f"{what}: {bus.owner} knows no such device", f"it knows: {', '.join(sorted(bus.kinds))}")
        if address in bus.devices:
            raise StateError(f"{what}: another device has that address")
        try:
            device = configured.pop(address, None)
            if device is None or device.kind != saved.spec.kind or device.options != dict(saved.spec.options):
                device = kind.device(bus.vm, address, saved.spec.options)
            _restore_device(device, saved)
        except (BusError, ValueError) as error:
            raise StateError(f"{what}: {error}") from error
        bus.devices[address] = device
    bus.devices = dict(sorted(bus.devices.items()))
    _restore_connectors(bus, state)


def _restore_device(device: VioDevice, saved: state_pb2.VioDeviceState) -> None:
    if isinstance(device, CrqDevice):
        device.restore_queue(saved.queue)
    device.restore(saved.state)


def _restore_connectors(bus: VioBus, state: state_pb2.VioState) -> None:
    saved = {connector.index: connector for connector in state.connectors}
    for connector in bus.connectors:
        device = bus.devices.get(connector.unit_address)
        own = saved.pop(connector.index, state_pb2.VioConnectorState(state=State.UNUSABLE))
        try:
            connector.restore(own, device)
        except ValueError as error:
            raise StateError(f"{bus.owner}: {error}") from error
    if saved:
        raise StateError(f"{bus.owner}: it has no slot {min(saved):#x}")
