# SPDX-License-Identifier: GPL-2.0-or-later
"""How much of what has no natural end: faults, hostile input, random calls, examples; more with `--long`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

EXAMPLES = 100
"""For each property, where its test says nothing else."""

LONG = {
    "SPLITVISOR_CHAOS_DISK_KILLS": "100",
    "SPLITVISOR_CHAOS_FAULTS": "300",
    "SPLITVISOR_CHAOS_MACHINE_KILLS": "3",
    "SPLITVISOR_FUZZ_CASES": "3000000",
    "SPLITVISOR_COMPILERS": "1",
    "SPLITVISOR_FUZZ_INPUTS": "2000",
    "SPLITVISOR_FUZZ_INSTRUCTIONS": "1000000",
    "SPLITVISOR_FUZZ_MESSAGES": "100000",
    "SPLITVISOR_FUZZ_REQUESTS": "1000000",
    "SPLITVISOR_NET_FLOOD_FRAMES": "1000000",
    "SPLITVISOR_NET_MEBIBYTES": "100",
    "SPLITVISOR_RANDOM_CALLS": "1000000",
}
"""What `--long` sets in the environment where nothing else is set there."""

# On a busy machine examples are slow to make and to try, and nothing else is wrong with them.
_patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("normal", _patient, max_examples=EXAMPLES)
settings.register_profile("long", _patient, max_examples=10 * EXAMPLES)


def choose(*, long: bool) -> None:
    """Set the amounts, before the modules of the tests read them."""
    settings.load_profile("long" if long else "normal")
    if long:
        for name, value in LONG.items():
            os.environ.setdefault(name, value)


def examples(count: int) -> int:
    """Return how many examples a property has whose test asks for a count: ten times as many with `--long`."""
    return count * settings().max_examples // EXAMPLES
