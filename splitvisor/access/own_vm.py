# SPDX-License-Identifier: GPL-2.0-or-later
"""Which VM a process is for, for whoever asks on its behalf: a cpu_service has one."""

from __future__ import annotations

from typing import ClassVar


class OwnVm:
    """The one VM of this process."""

    name: ClassVar[str] = ""
    """Empty while there is none."""
