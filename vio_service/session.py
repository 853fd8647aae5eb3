# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM at vio_service: which devices there are, put together with what they have on the host.

A new kind of device is a package of vio_service.devices and one line in KINDS. Its calls have keys: the same kind may be at
another back end too. Calls without one are the machine's, and only the back end with the bus's first slot has them.
"""

from __future__ import annotations

from splitvisor.backend import Hypercall, RtasCall, Vm
from splitvisor.backend.vio import BUS_CALLS, VioSession, kinds
from splitvisor.backend.vio.hcall_client import HcallServiceClient
from vio_service.console.vm_consoles import DEFAULT_SETTINGS, ConsoleSettings, VmConsoles
from vio_service.devices import llan, nvram, vscsi, vty, vty_server

NAME = "vio_service"
KINDS = kinds(vty.KIND, vty_server.KIND, nvram.KIND, vscsi.KIND, llan.KIND)
"""Every kind of device that a machine's configuration may ask for here."""
MACHINE_CALLS = (*vty.MACHINE_CALLS, *nvram.MACHINE_CALLS)
"""Those that have one owner in a machine."""
CALLS: tuple[Hypercall | RtasCall, ...] = (*(call for kind in KINDS.values() for call in kind.calls), *BUS_CALLS, *MACHINE_CALLS)
"""Every call that vio_service may own, for docs/."""


def vio_session(
    vm: Vm, hcall_service: HcallServiceClient | None = None, consoles: ConsoleSettings = DEFAULT_SETTINGS
) -> VioSession[VmConsoles]:
    """Make the session of a VM.

    Args:
        vm: the VM.
        hcall_service: has its stored tree, which follows the bus; None: devices do not come and go.
        consoles: what holds for its consoles.

    Raises BusError when the devices that the VM asks for do not fit together, or its transcripts cannot be kept.
    """
    is_first = 0 in vm.slots
    # NVRAM's calls do not say which one they mean: a machine has it where these calls are.
    known = KINDS if is_first else kinds(*(kind for kind in KINDS.values() if kind is not nvram.KIND))
    return VioSession(vm, known, VmConsoles(vm, consoles), NAME, hcall_service, MACHINE_CALLS if is_first else ())
