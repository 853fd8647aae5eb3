# SPDX-License-Identifier: GPL-2.0-or-later
"""Functions of Unicorn, and what of the native part stands in for them."""

from __future__ import annotations

import ctypes

from cpu_service.engine import native
from cpu_service.engine.interpose import loaded_unicorn

REPLACEMENTS = {
    # native/code_tracking.c
    "tb_gen_code_ppc64": "tracked_gen_code",
    "tb_invalidate_phys_page_fast_ppc64": "tracked_store",
    "tlb_reset_dirty_by_vaddr_ppc64": "tracked_reset_dirty",
    "tlb_set_page_ppc64": "tracked_set_page",
    # native/memory_map.c
    "address_space_translate_for_iotlb_ppc64": "find_section",
    # native/exit_check.c
    "tcg_gen_exit_tb_ppc64": "translate_exit",
    # native/block_cache.c
    "tb_htable_lookup_ppc64": "find_block",
    # native/abort.c
    "cpu_abort_ppc64": "guest_abort",
    "abort": "guest_exit",
    "exit": "guest_exit",
}

_NEVER_CALLED = ("cpu_abort_ppc64", "abort", "exit")
"""By an engine that works."""
_INTERRUPT_HANDLER = "cpu_interrupt_handler"
"""A variable that holds the address of a function."""


def not_called(called: int) -> list[str]:
    """Return which functions an engine has not called through their slots, of those that the proofs at its start need.

    Args:
        called: of its FastPath; its bits are in the order of REPLACEMENTS.
    """
    needed = [name for name in REPLACEMENTS if name not in _NEVER_CALLED]
    return [name for bit, name in enumerate(needed) if not called >> bit & 1]


def install() -> None:
    """Replace them for every engine that this process runs through the native part. Raises UnsupportedEngineError."""
    handler = ctypes.c_uint64.from_address(loaded_unicorn().address(_INTERRUPT_HANDLER))
    handler.value = native.address("raise_interrupt")
    for name, replacement in REPLACEMENTS.items():
        loaded_unicorn().replace(name, native.address(replacement))
