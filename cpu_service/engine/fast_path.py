# SPDX-License-Identifier: GPL-2.0-or-later
"""The native part of the engine's loop and of its exception hook, native/fast_path.c.

Linux takes some 110,000 exceptions and gives as many priority hints while it boots, and most need no decision: the guest's
own exceptions go to its vectors, H_ENTER and its kin are a few loads and stores, and after a hint it goes on. Python
around them costs more than they do. What the native part does not do it leaves to Python, which can do everything.
"""

from __future__ import annotations

import ctypes

from cpu_service.engine.layout import MMU_MODES

EXCEPTIONS = 128
"""Numbers of exceptions that are counted."""


class FastPath(ctypes.Structure):
    """What the code works on: `struct fast_path`. Addresses of the engine's own, but for the table's size and the counts."""

    _fields_ = (
        ("gpr", ctypes.c_uint64),
        ("msr", ctypes.c_uint64),
        ("nip", ctypes.c_uint64),
        ("error_code", ctypes.c_uint64),
        ("exception_index", ctypes.c_uint64),
        ("cpu", ctypes.c_uint64),
        ("do_interrupt", ctypes.c_uint64),
        ("tlb_flush", ctypes.c_uint64),
        ("tlb_flush_page", ctypes.c_uint64),
        ("slb", ctypes.c_uint64),
        ("tlb_descriptions", ctypes.c_uint64),
        ("tlb_description_size", ctypes.c_uint64),
        ("modes", ctypes.c_uint64),
        ("slow", ctypes.c_uint64),
        ("emu_start", ctypes.c_uint64),
        ("uc", ctypes.c_uint64),
        ("table", ctypes.c_uint64),
        ("entries", ctypes.c_uint64),
        ("ram_bytes", ctypes.c_uint64),
        ("entered", ctypes.c_uint64),
        ("removed", ctypes.c_uint64),
        ("protections", ctypes.c_uint64),
        ("bulk_removals", ctypes.c_uint64),
        ("hints", ctypes.c_uint64),
        ("delivered", ctypes.c_uint64 * EXCEPTIONS),
        ("env", ctypes.c_uint64),
        ("spr", ctypes.c_uint64),
        ("ram", ctypes.c_uint64),
        ("pages", ctypes.c_uint64),
        ("fast_tlbs", ctypes.c_uint64),
        ("interrupt_request", ctypes.c_uint64),
        ("pending", ctypes.c_uint64),
        ("exit_flag", ctypes.c_uint64),
        ("aborted", ctypes.c_char_p),
        ("deliver", ctypes.c_uint64),
        ("enabled", ctypes.c_uint64),
        ("stopping", ctypes.c_uint32),
        ("watched_stores", ctypes.c_uint32),
        ("watched_page", ctypes.c_uint64),
        ("own_walk", ctypes.c_uint64),
        ("walks", ctypes.c_uint64),
        ("misses", ctypes.c_uint64 * MMU_MODES),
        ("enlargements", ctypes.c_uint64),
        ("ram_section", ctypes.c_void_p),
        ("ram_region", ctypes.c_void_p),
        ("called", ctypes.c_uint64),
        ("translations_left", ctypes.c_uint64),
        ("decrementer", ctypes.c_uint64),
        ("blocks", ctypes.c_uint64),
        ("flushes", ctypes.c_uint64),
        ("flushes_seen", ctypes.c_uint64),
        ("blocks_found", ctypes.c_uint64),
        ("hints_left", ctypes.c_uint64),
        ("timer_ns", ctypes.c_uint64),
    )


BLOCK_CACHE_ENTRIES = 1 << 14
"""Addresses in the cache of blocks: 2 to the INDEX_BITS of native/block_cache.c."""
NO_PAGE = (1 << 64) - 1
"""As the watched page."""
UNLIMITED = (1 << 64) - 1
"""As the translations that are left."""
ABORTED, DECREMENTER_WRITTEN = 127, 126
"""Exception numbers with which the engine gives up, and says that Python has to know of a write to the decrementer."""
FOREVER_NS = (1 << 64) - 1
"""No time at all: as timer_ns, Python has to know of each write to the decrementer."""
HOOK, RUN = "exception_hook", "run_guest"
"""Names of the functions in the native part."""
