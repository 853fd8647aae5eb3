# SPDX-License-Identifier: GPL-2.0-or-later
"""One VM at hcall_service: every call that this back end owns, in one table."""

from __future__ import annotations

from typing import ClassVar

from hcall_service.platform_hcalls import PLATFORM_CALLS
from hcall_service.rtas import RTAS_CALLS, RtasSession
from splitvisor.backend import Hypercall, RtasCall


class PlatformSession(RtasSession):
    """RTAS and the platform's hypercalls for one VM."""

    calls: ClassVar[tuple[Hypercall | RtasCall, ...]] = (*RTAS_CALLS, *PLATFORM_CALLS)
