# SPDX-License-Identifier: GPL-2.0-or-later
"""The settings of a machine that are one value each: the field that each sets, and its check."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from splitvisor.errors.similar import did_you_mean
from splitvisor.limits import (
    BOOT_SOURCES,
    BOOTARGS_BYTES,
    MAX_VCPUS,
    MEMORY_MAX,
    MEMORY_MIN,
    MEMORY_STEP,
    MIB,
    VM_NAME_RULE,
    is_vm_name,
)
from splitvisor.machine.config import BOOT_PROTOCOLS, WATCHDOG_ACTIONS
from splitvisor.process.inputs import open_input
from splitvisor.process.text import is_text, shown

_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE | re.ASCII)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class WrongValueError(Exception):
    """What is wrong with a value and what to do; the caller knows where it stands."""


def _size(value: Any, _base: Path) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise WrongValueError(f"{value!r} is not a size", "give a number with a unit, such as 512M or 2G")
        size = int(Fraction(match[1]) * _UNITS[match[2].upper()])
    if not MEMORY_MIN <= size <= MEMORY_MAX:
        meant = _memory_meant(str(value).strip())
        remedy = f"did you mean {meant}?" if meant else f"give {MEMORY_MIN // MIB}M to {MEMORY_MAX >> 30}G"
        raise WrongValueError(f"{value} is out of range", remedy)
    if size % MEMORY_STEP:
        raise WrongValueError(
            f"{value} is not a multiple of {MEMORY_STEP // MIB}M", f"give {size // MEMORY_STEP * MEMORY_STEP // MIB}M"
        )
    return size


def _memory_meant(text: str) -> str:
    """Return a size whose unit somebody has left out; empty when there is no such size."""
    if text.isascii() and text.isdecimal() and len(text) < 9:
        for unit in ("M", "G"):
            size = int(text) * _UNITS[unit]
            if MEMORY_MIN <= size <= MEMORY_MAX and not size % MEMORY_STEP:
                return f"{text}{unit}"
    return ""


def _vcpus(value: Any, _base: Path) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_VCPUS:
        raise WrongValueError(f"{value!r} is not a number of vCPUs", f"give 1 to {MAX_VCPUS}")
    return value


def check_name(value: Any, _base: Path) -> str:
    """Return the name of a VM. Raises WrongValueError when it is none."""
    if not isinstance(value, str) or not is_vm_name(value):
        raise WrongValueError(f"{value!r} is not a name", f"use {VM_NAME_RULE}")
    return value


def not_text(path: Path) -> tuple[str, str]:
    """Return what is wrong with a path that is_text() does not take and that another process is to open, and what to do."""
    return f"{shown(str(path))} is not UTF-8, as the service that opens it takes paths", "give the path of a link to it"


def _file(value: Any, base: Path) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise WrongValueError(f"{value!r} is not a path", "give the path of a file")
    path = base / Path(value).expanduser()
    if not is_text(str(path.absolute())):
        raise WrongValueError(*not_text(path.absolute()))
    try:
        open_input(path).close()
    except OSError as error:
        raise WrongValueError(f"{path} cannot be read ({error.strerror})", "give the path of a file") from error
    return path


def _append(value: Any, _base: Path) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise WrongValueError(f"{value!r} is not a command line", "give a text")
    if not is_text(value):
        raise WrongValueError(f"{shown(value)} is not UTF-8", "give a text in UTF-8")
    if len(value.encode()) > BOOTARGS_BYTES:
        raise WrongValueError(f"is {len(value.encode())} bytes long", f"the kernel takes {BOOTARGS_BYTES}")
    return value


def _boot(value: Any, _base: Path) -> tuple[str, ...]:
    words = value.split(",") if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words) or not words:
        remedy = f"give {' or '.join(BOOT_SOURCES)}, such as cdrom,disk"
        raise WrongValueError(f"{value!r} is no list of what to boot from", remedy)
    stripped = tuple(word.strip() for word in words)
    for word in stripped:
        if word not in BOOT_SOURCES:
            remedy = did_you_mean(word, BOOT_SOURCES) or f"known: {', '.join(BOOT_SOURCES)}"
            raise WrongValueError(f"{word!r} is nothing to boot from", remedy)
    if len(set(stripped)) != len(stripped):
        raise WrongValueError(f"{','.join(stripped)} names something twice", "name each once")
    return stripped


def _flag(value: Any, _base: Path) -> bool:
    if not isinstance(value, bool):
        raise WrongValueError(f"{value!r} is neither true nor false", "give true or false")
    return value


def _watchdog_action(value: Any, _base: Path) -> str:
    if not isinstance(value, str) or value not in WATCHDOG_ACTIONS:
        remedy = did_you_mean(str(value), WATCHDOG_ACTIONS) or f"give {', '.join(WATCHDOG_ACTIONS)}"
        raise WrongValueError(f"{value!r} is not an action of a watchdog", remedy)
    return value


def _boot_protocol(value: Any, _base: Path) -> str:
    if not isinstance(value, str) or value not in BOOT_PROTOCOLS:
        remedy = did_you_mean(str(value), BOOT_PROTOCOLS) or f"give {' or '.join(BOOT_PROTOCOLS)}"
        raise WrongValueError(f"{value!r} is not a boot protocol", remedy)
    return value


SETTINGS: Mapping[str, tuple[str, Callable[[Any, Path], Any]]] = {
    "name": ("name", check_name),
    "memory": ("memory", _size),
    "smp": ("vcpus", _vcpus),
    "kernel": ("kernel", _file),
    "initrd": ("initrd", _file),
    "append": ("append", _append),
    "firmware": ("firmware", _file),
    "boot": ("boot", _boot),
    "flat_tree": ("flat_tree", _flag),
    "boot_protocol": ("boot_protocol", _boot_protocol),
    "watchdog_action": ("watchdog_action", _watchdog_action),
    "shared_memory": ("shared_memory", _flag),
}
"""Keys of a machine file (flags have the same names): the field that each sets, and its check."""
