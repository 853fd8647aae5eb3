# SPDX-License-Identifier: GPL-2.0-or-later
"""The documentation site, built as `./dev check` builds it, but without Mermaid, which npm fetches."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from splitvisor.devtools.site import pages

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "SPLITVISOR_MERMAID": "", "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(directory)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    return directory


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    loads = re.compile(r"""<(?:script|link|img|iframe)[^>]*\s(?:src|href)=["']?(?:https?:)?//[^>]*>""")
    assert [found for page in site.rglob("*.html") for found in loads.findall(page.read_text())] == []


def test_without_mermaid_a_diagram_is_text(site: Path) -> None:
    """The theme would fetch Mermaid from another host."""
    assert [page for page in site.rglob("*.html") if re.search(r'class="mermaid"', page.read_text())] == []


def test_the_front_page_is_the_readme_and_its_links_lead_to_pages(site: Path) -> None:
    front = (site / "index.html").read_text()
    assert 'href="architecture.html"' in front
    assert 'href="api/splitvisor.backend.vio.html"' in front
    assert 'src="pictures/boot.svg"' in front


def test_a_link_to_a_source_file_leads_to_its_text(site: Path) -> None:
    assert 'href="source/examples/cpp/counter.cc.html"' in (site / "backends.html").read_text()
    assert "class Tally" in re.sub("<[^>]+>", "", (site / "source/examples/cpp/counter.cc.html").read_text())


@pytest.mark.parametrize("package", [name for name, modules in pages.PUBLIC.items() if not modules])
def test_every_public_name_is_described(site: Path, package: str) -> None:
    text = (site / f"api/{package}.html").read_text()
    assert [name for name in import_module(package).__all__ if f'id="{package}.{name}"' not in text] == []


def test_every_page_of_docs_is_in_the_navigation() -> None:
    readme = (ROOT / "README.md").read_text()
    nav = repr(pages.navigation(readme))
    assert [page for page in pages.pages_at("docs") if repr(page) not in nav] == []
    assert "{'More': ['performance.md']}" in repr(pages.navigation(readme.replace("docs/performance.md", "docs/metrics.md")))


def test_links_in_code_stay() -> None:
    text = "[a](b.md#c)\n```\n[a](b.md)\n```\n    [a](b.md)\n[a](https://b/c)"
    assert pages.replace_links(text, lambda text, link, anchor: f"{text}<{link}{anchor}>") == text.replace("(b.md#c)", "<b.md#c>")
