# SPDX-License-Identifier: GPL-2.0-or-later
"""The gateway gives a token's role what the services give a certificate's."""

from __future__ import annotations

import pytest

from gateway_service.authorization import PERMISSIONS, Action, Role
from splitvisor.access import identity
from splitvisor.access.authorization import RefusedError, check, rules
from splitvisor.rpc import console_pb2, device_tree_pb2, machine_pb2

OPEN = console_pb2.AttachConsoleRequest(open=console_pb2.ConsoleOpen(vm="vm"))
OPEN_TO_TYPE = console_pb2.AttachConsoleRequest(open=console_pb2.ConsoleOpen(vm="vm", writer=True))

CALLS: list[tuple[Action, str, object]] = [
    (Action.LIST, "ConsoleService/ListConsoles", console_pb2.ListConsolesRequest()),
    (Action.READ_CONSOLE, "ConsoleService/AttachConsole", OPEN),
    (Action.WRITE_CONSOLE, "ConsoleService/AttachConsole", OPEN_TO_TYPE),
    (Action.SEE_STATUS, "MachineService/GetStatus", machine_pb2.GetStatusRequest(vm="vm")),
    (Action.READ_TREE, "DeviceTreeService/GetTree", device_tree_pb2.GetTreeRequest(vm="vm")),
    (Action.READ_TREE, "DeviceTreeService/ListRevisions", device_tree_pb2.ListRevisionsRequest(vm="vm")),
    (Action.CONTROL, "MachineService/PauseMachine", machine_pb2.PauseMachineRequest(vm="vm")),
    (Action.CONTROL, "MachineService/ResumeMachine", machine_pb2.ResumeMachineRequest(vm="vm")),
    (Action.CONTROL, "MachineService/ResetMachine", machine_pb2.ResetMachineRequest(vm="vm")),
    (Action.CONTROL, "MachineService/StopMachine", machine_pb2.StopMachineRequest(vm="vm")),
]
"""Every call that the gateway makes for somebody."""


@pytest.mark.parametrize("role", Role)
def test_a_token_may_what_a_certificate_of_its_role_may(role: Role) -> None:
    assert {action for action, _, _ in CALLS} == PERMISSIONS.keys()
    known = rules([f"splitvisor.control.v1.{name}" for name in ("ConsoleService", "MachineService", "DeviceTreeService")])
    certificate = identity.Identity(identity.Role(role), ("vm",))
    for action, rpc, request in CALLS:
        try:
            check(known[f"/splitvisor.control.v1.{rpc}"], certificate, request)
            allowed = True
        except RefusedError:
            allowed = False
        assert allowed == (role in PERMISSIONS[action]), (role, rpc)
