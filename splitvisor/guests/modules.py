# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel modules of a package, with what they depend on, and the tables that modprobe reads (modules.dep(5), modprobe.d(5)).

A package has the modules only: their tables are made where it is installed. What they say stands in each module's own section
`.modinfo`, as strings that end with a zero byte (Linux, include/linux/module.h).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from splitvisor.guests.apt import GuestError

_FIELD = re.compile(rb"(?<=\0)(depends|softdep|alias)=([\x20-\x7e]*)(?=\0)")
_BEFORE = "pre:"


@dataclass(frozen=True)
class Module:
    """A module: the name that lsmod shows, where it is below /lib/modules/VERSION, its bytes."""

    name: str
    path: str
    data: bytes

    @cached_property
    def depends(self) -> tuple[str, ...]:
        """Modules whose symbols it uses."""
        return tuple(name for value in self._values("depends") for name in value.split(",") if name)

    @cached_property
    def softly(self) -> tuple[str, ...]:
        """Modules or aliases that it wants to be loaded before it, but can do without."""
        return tuple(name for value in self._values("softdep") if value.startswith(_BEFORE) for name in value.split()[1:])

    @cached_property
    def aliases(self) -> tuple[str, ...]:
        """Names under which the kernel asks for it; * and ? as in a shell."""
        return tuple(self._values("alias"))

    def _values(self, field: str) -> Iterator[str]:
        return (value.decode() for name, value in _FIELD.findall(self.data) if name == field.encode())


def modules_with_dependencies(tree: Path, names: Iterable[str]) -> list[Module]:
    """Return modules and all that they depend on, each after what it depends on.

    Args:
        tree: /lib/modules/VERSION of the package, whose modules are not compressed.
        names: as lsmod shows them.

    Raises GuestError when the package has no such module, neither as a file nor built into the kernel.
    """
    paths = {path.stem.replace("-", "_"): path for path in tree.rglob("*.ko")}
    built_in = {Path(line).stem.replace("-", "_") for line in (tree / "modules.builtin").read_text().split()}
    found: dict[str, Module] = {}

    def add(name: str) -> None:
        if name in found or name in built_in:
            return
        if name not in paths:
            raise GuestError(f"the kernel's package has no module {name}", "please report it")
        module = Module(name, str(paths[name].relative_to(tree)), paths[name].read_bytes())
        for each in module.depends:
            add(each.replace("-", "_"))
        found[name] = module

    for name in names:
        add(name)
    return list(found.values())


def tables(modules: list[Module]) -> dict[str, str]:
    """Return modules.dep and modules.alias, by name, for modules that are complete.

    busybox's modprobe reads no modules.softdep, so that what a module wants before it stands with what it depends on.
    """
    by_name = {module.name: module for module in modules}
    by_alias = {alias: module.name for module in modules for alias in module.aliases}

    def before(module: Module) -> Iterator[Module]:
        """What must be there before a module, the nearest last."""
        wanted = [*module.depends, *(by_alias.get(name, name) for name in module.softly)]
        for name in (each.replace("-", "_") for each in wanted):
            if name in by_name and name != module.name:
                yield from before(by_name[name])
                yield by_name[name]

    # modprobe begins at the end of a line.
    paths = {module.path: list(dict.fromkeys(each.path for each in before(module)))[::-1] for module in modules}
    depends = [f"{path}: {' '.join(others)}".rstrip() + "\n" for path, others in paths.items()]
    aliases = [f"alias {alias} {module.name}\n" for module in modules for alias in module.aliases]
    return {"modules.dep": "".join(depends), "modules.alias": "".join(aliases)}
