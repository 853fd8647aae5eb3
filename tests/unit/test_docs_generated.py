# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables in docs/ are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from of_client_service.client_services import SERVICES as CLIENT_SERVICES
from splitvisor.devtools import call_tables as docs
from splitvisor.devtools.fuzz_cpu.documentation import rewritten
from splitvisor.devtools.qemu_calls import OTHER_SERVICES, VOF_SERVICES

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return docs.pages()


@pytest.mark.parametrize("name", ["hypercalls.md", "rtas.md", "openfirmware.md", "metrics.md"])
def test_a_generated_page_is_what_the_tables_say(pages: dict[str, str], name: str) -> None:
    assert (DOCS / name).read_text() == pages[name], "run ./dev docs and commit what it changes"


def test_the_differences_of_instructions_are_listed() -> None:
    page = (DOCS / "compatibility.md").read_text()
    assert page == rewritten(page), "run ./dev docs and commit what it changes"


def test_what_vof_has_is_here_and_what_is_listed_as_missing_is_not() -> None:
    ours = {service.name for service in CLIENT_SERVICES}
    assert VOF_SERVICES.keys() <= ours
    assert not OTHER_SERVICES.keys() & ours


def test_no_call_of_the_vio_bus_is_only_in_qemu(pages: dict[str, str]) -> None:
    families = {
        "hypercalls.md": r"H_INT_|H_SCM_|KVMPPC_|H_(RPT_INVALIDATE|INVALIDATE_PID|REGISTER_PROC_TBL|CLEAN_SLB)$",
        "rtas.md": r"(?=.*(pci-config|msi|-pe|eeh|slot|config-addr|query-interrupt-source|suspend-me))",
    }
    for name, family in families.items():
        _, missing = pages[name].split("## Only with QEMU")
        names = re.findall("`([^`]+)`", missing)
        assert names
        assert [each for each in names if not re.match(family, each)] == [], "PCI, XIVE, radix, NVDIMMs, nested KVM, migration"


def test_no_call_has_two_owners() -> None:
    local = docs.local_calls()
    for rows in (docs.hypercall_rows(local), docs.rtas_rows(local)):
        names = [row.name for row in rows]
        assert len(names) == len(set(names))
        assert names
