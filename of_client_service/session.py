# SPDX-License-Identifier: GPL-2.0-or-later
"""The hypercall behind the client interface: H_OF_CLIENT takes the address of an argument array (IEEE 1275 6.3.1).

word 0      address of the service's name
word 1, 2   number of argument cells n, number of return cells m
n words     arguments
m words     returns, written by the service
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

import structlog

from of_client_service import interface_state
from of_client_service.architecture_support import negotiate_for_firmware
from of_client_service.client_interface import FAILED, MAX_NAME, MAX_PATH, ClientCall, ClientInterface
from of_client_service.client_services import CLIENT_SERVICES
from of_client_service.device_tree import TreeFullError
from of_client_service.tree_store import TreeStore, TreeStoreError
from splitvisor.backend import Call, Hypercall, Operand, Session, Vm
from splitvisor.declarations.guest_memory import LOGICAL_ADDRESS_MASK, GuestAddressError
from splitvisor.declarations.state import StateError
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from splitvisor.rpc import trap_pb2 as pb
from splitvisor.tree.fdt import FdtError

MAX_CELLS = 32
"""Arguments and returns of one call. No service of IEEE 1275 has more than 6; call-method has what its method needs."""
HEADER_BYTES = 12
USUAL_BYTES = 52
"""Header and ten cells: sent along with the trap."""

log = structlog.get_logger()


class ClientInterfaceSession(Session):
    """One machine's Open Firmware.

    Args:
        vm: the machine.
        store: where its tree is.
    """

    def __init__(self, vm: Vm, store: TreeStore) -> None:
        super().__init__(vm)
        self.interface = ClientInterface(vm, store)

    async def reset(self) -> None:
        """See Session. Without a tree the machine cannot boot: it is ended, with the reason."""
        try:
            await self.interface.reset()
        except (TreeStoreError, FdtError) as error:
            self.vm.machine_action(pb.MACHINE_ACTION_KIND_CRASH, f"of_client_service has no device tree: {error}")

    async def save(self) -> bytes:
        """See Session."""
        return interface_state.save(self.interface)

    async def restore(self, state: bytes) -> None:
        """See Session."""
        interface_state.restore(self.interface, state)
        try:
            await self.interface.go_on_from_head()
        except TreeStoreError as error:
            raise StateError(f"of_client_service has no device tree: {error}") from error

    async def call_client_interface(self, call: Call) -> int:
        """Do one client service. H_PARAMETER, which clients see as -1, when there is no such service."""
        block = call.arguments[0] & LOGICAL_ADDRESS_MASK
        memory = self.vm.memory
        try:
            name_at, arguments, returns = await memory.read_words(block, 3)
            if arguments + returns > MAX_CELLS:
                return H.PARAMETER
            returns_at = block + HEADER_BYTES + 4 * arguments
            memory.check(returns_at, 4 * returns)
            cells = await memory.read_words(block + HEADER_BYTES, arguments)
            name = (await memory.read_string(name_at, MAX_NAME)).decode("latin-1")
        except (GuestAddressError, ValueError):
            return H.PARAMETER
        service = CLIENT_SERVICES.get(name)
        if service is None or service.arguments not in (None, arguments):
            log.debug("no such client service", vm=self.vm.name, service=name, arguments=arguments)
            await memory.write_words(returns_at, *((FAILED,) if returns else ()))
            return H.PARAMETER
        try:
            await self.interface.units()
            answer = service.function(self.interface, ClientCall(cells, returns, call))
            results: int | Sequence[int] = await answer if isinstance(answer, Awaitable) else answer
        except (GuestAddressError, ValueError, TreeFullError) as error:
            log.debug("client service failed", vm=self.vm.name, service=name, reason=str(error))
            results = FAILED
        words = (results,) if isinstance(results, int) else results
        await memory.write_words(returns_at, *words[:returns], *(0,) * (returns - len(words)))
        return H.SUCCESS

    async def client_architecture_support(self, call: Call) -> int:
        """Negotiate for a client of the guest's own firmware: address of its vectors; address and size of room for the tree."""
        return await negotiate_for_firmware(self.interface, *call.arguments)

    calls = (
        Hypercall(
            Hcall.H_OF_CLIENT,
            call_client_interface,
            arguments=1,
            section="IEEE 1275 6.3",
            note="docs/openfirmware.md lists the services",
            operands=(
                Operand(USUAL_BYTES, argument=0),
                Operand(MAX_NAME, word=(0, 0), string=True),
                Operand(MAX_PATH, word=(0, 3), string=True),
                Operand(MAX_NAME, word=(0, 4), string=True),
            ),
        ),
        Hypercall(
            Hcall.H_CAS,
            client_architecture_support,
            arguments=3,
            section="private to QEMU and SLOF",
            note="for a firmware of the guest's own; a client of ours calls ibm,client-architecture-support",
        ),
    )
