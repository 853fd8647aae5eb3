# SPDX-License-Identifier: GPL-2.0-or-later
"""Every rpc says who may call it, and docs/security.md tells the same. Who then gets in: tests/component/test_access.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from splitvisor.access.authorization import OTHER_RULES, RefusedError, Rule, check, keep_own, rules
from splitvisor.access.identity import Identity, Role
from splitvisor.rpc import access_pb2, console_pb2, machine_pb2, trap_pb2, vio_bus_pb2
from splitvisor.service.names import SERVICE_NAMES
from tests.rpc_methods import field, methods, services

DOCUMENT = Path(__file__).resolve().parent.parent.parent / "docs" / "security.md"
SERVICES = list(services())
OPERATOR = Identity(Role.OPERATOR, ("web-*",))


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_every_rpc_declares_who_may_call_it(service: Any) -> None:
    found = rules([service.full_name])
    for path, method in methods(service):
        assert path in found, f"{path} needs `option (access)`; see proto/splitvisor/access/v1/access.proto"
        rule, options = found[path], method.GetOptions().Extensions[access_pb2.access]
        assert rule.roles, f"{path} is for nobody"
        assert options.WhichOneof("vm"), f"{path} does not say where its VM stands"
        if rule.field:
            assert field(method.input_type, rule.field).type == field(method.input_type, rule.field).TYPE_STRING
        if rule.listed:
            first, *rest = rule.listed
            elements = method.output_type.fields_by_name[first]
            assert elements.is_repeated
            assert not method.server_streaming
            last = field(elements.message_type, rest) if rest else elements
            assert last.type == last.TYPE_STRING
        for path_to_field, roles in (rule.restrictions or {}).items():
            restricted = field(method.input_type, path_to_field)
            assert restricted.type in (restricted.TYPE_BOOL, restricted.TYPE_STRING)
            assert roles < rule.roles


@pytest.mark.parametrize("name", SERVICE_NAMES, ids=lambda name: name.package)
def test_what_a_service_serves_is_known_by_its_descriptors(name: Any) -> None:
    assert set(name.load().SERVICES) <= {service.full_name for service in SERVICES}


def test_the_document_tells_what_is_declared() -> None:
    text = DOCUMENT.read_text()
    table = text.partition("<!-- access -->\n")[2].partition("<!-- /access -->")[0]
    told = {}
    for line in table.strip().splitlines()[2:]:
        rpc, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        told[rpc.strip("`")] = frozenset(role for role, cell in zip(Role, cells, strict=True) if cell)
    found = {path.rpartition(".")[2].replace("/", "."): rule.roles for path, rule in rules(s.full_name for s in SERVICES).items()}
    others = {service.rpartition(".")[2]: rule.roles for service, rule in OTHER_RULES.items()}
    assert told == found | others, expected_table(found | others)


def expected_table(found: dict[str, frozenset[Role]]) -> str:
    """The rows that the document should have, to be pasted."""
    rows = (f"| `{rpc}` | " + " | ".join("x" if role in roles else "" for role in Role) + " |" for rpc, roles in found.items())
    return "\n" + "\n".join(rows)


def allowed(rule: Rule, identity: Identity, request: Any) -> bool:
    try:
        check(rule, identity, request)
    except RefusedError:
        return False
    return True


def rule_of(service: str, rpc: str) -> Rule:
    name = next(found.full_name for found in services() if found.name == service)
    return rules([name])[f"/{name}/{rpc}"]


def test_typing_at_a_console_needs_more_than_reading_it() -> None:
    rule = rule_of("ConsoleService", "AttachConsole")
    reading = console_pb2.AttachConsoleRequest(open=console_pb2.ConsoleOpen(vm="web-1"))
    typing = console_pb2.AttachConsoleRequest(open=console_pb2.ConsoleOpen(vm="web-1", writer=True))
    reader, writer = (Identity(role, ("web-*",)) for role in (Role.CONSOLE_READ, Role.CONSOLE_WRITE))
    assert allowed(rule, reader, reading)
    assert not allowed(rule, reader, typing)
    assert allowed(rule, writer, typing)
    assert not allowed(rule, Identity(Role.CONSOLE_WRITE, ("db",)), typing)


def test_only_a_cpu_service_opens_a_trap_stream_and_for_its_own_vms() -> None:
    rule = rule_of("TrapService", "Attach")
    hello = trap_pb2.AttachRequest(hello=trap_pb2.Hello(vm="web-1"))
    assert [role for role in Role if allowed(rule, Identity(role, ("*",)), hello)] == [Role.CPU]
    assert not allowed(rule, Identity(Role.CPU, ("db",)), hello)
    assert not allowed(rule, Identity(Role.CPU, ("web-*",)), trap_pb2.AttachRequest())


def test_a_machine_is_controlled_by_its_own_operators() -> None:
    rule = rule_of("MachineService", "StopMachine")
    for vm, expected in (("web-1", True), ("db", False), ("", False)):
        assert allowed(rule, OPERATOR, machine_pb2.StopMachineRequest(vm=vm)) is expected


def test_lists_keep_what_the_certificate_is_for() -> None:
    names = vio_bus_pb2.ListBusesResponse(buses=[vio_bus_pb2.Bus(vm=vm) for vm in ("db", "web-1", "web-2")])
    keep_own(rule_of("VioBusService", "ListBuses"), OPERATOR, names)
    assert [bus.vm for bus in names.buses] == ["web-1", "web-2"]
    consoles = console_pb2.ListConsolesResponse(consoles=[console_pb2.Console(vm=vm) for vm in ("db", "web-1")])
    keep_own(rule_of("ConsoleService", "ListConsoles"), OPERATOR, consoles)
    assert [console.vm for console in consoles.consoles] == ["web-1"]
    machines = machine_pb2.ListMachinesResponse(machines=[machine_pb2.Machine(vm=vm) for vm in ("db", "web-1")])
    keep_own(rule_of("MachineService", "ListMachines"), OPERATOR, machines)
    assert [machine.vm for machine in machines.machines] == ["web-1"]
