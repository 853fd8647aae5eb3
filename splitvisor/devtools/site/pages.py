# SPDX-License-Identifier: GPL-2.0-or-later
"""What mkdocs.yml cannot say of the documentation site; MkDocs calls the functions named on_.

- The front page is README.md, and the navigation is its table of documentation. Pages that the table does not name follow in a
  section of their own.
- CONTRIBUTING.md and its neighbours become pages, and so does every source file that a page links to. A link to a folder of such
  files shows its name.
- Each public package has a page, made from its docstrings.
- Mermaid is part of the site if SPLITVISOR_MERMAID names the folder that fetch.sh filled; otherwise diagrams show as text.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.superfences import fence_code_format

ROOT = Path(__file__).resolve().parents[3]
DOCS = "docs"
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples.md",
}
"""Pages outside docs/: their files in the repository and in the site."""
PUBLIC = {"splitvisor.backend": False, "splitvisor.backend.vio": False, "splitvisor.testing": False, "splitvisor.papr": True}
"""Packages whose docstrings are pages. True: all that their modules
have is public, not only the names that the package exports."""
API = """# {0}

::: {0}
    options:
      show_submodules: {1}
      show_if_no_docstring: {1}
"""
MERMAID = "mermaid.tiny.js"
OWN_SIZE = '%%{init: {"sequence": {"useMaxWidth": false}}}%%\n'
STYLE = "site.css"
SCROLLED = ".mermaid { overflow-x: auto; }\n"
"""A diagram that is wider than the text can be scrolled."""

_PACKAGES = {f"{package.replace('.', '/')}/__init__.py": package for package in PUBLIC}
_LINK = re.compile(r"(!?\[[^]]*\])\(([^)#\s]+)(#[^)\s]*)?\)")
_ROW = re.compile(r"^\| (?!To |-)([^|]+) \| (.+) \|$", re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make the navigation, and switch diagrams on if Mermaid is there."""
    config.nav = navigation((ROOT / "README.md").read_text())
    if mermaid() is not None:
        config.extra_javascript.append(MERMAID)
        config.extra_css.append(STYLE)
        fence = {"name": "mermaid", "class": "mermaid", "format": diagram}
        config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    return config


def diagram(source: str, *arguments: Any, **named: Any) -> str:
    """Return a diagram in its own size; by default it shrinks to the width of the text, however small its letters get."""
    return str(fence_code_format(OWN_SIZE + source, *arguments, **named))


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that are not files of docs/."""
    for name, site in PAGES.items():
        files.append(File.generated(config, site, content=(ROOT / name).read_text()))
    for package, modules in PUBLIC.items():
        files.append(File.generated(config, api_page(package), content=API.format(package, str(modules).lower())))
    linked = {each for page in files.documentation_pages() for each in links(page.content_string, repository_path(page.src_uri))}
    for path in sorted(linked):
        if site_path(path) == source_page(path) and (ROOT / path).is_file():
            files.append(File.generated(config, source_page(path), content=listing(path)))
    script = mermaid()
    if script is not None:
        files.append(File.generated(config, MERMAID, content=script.read_bytes()))
        files.append(File.generated(config, STYLE, content=SCROLLED))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make the page's links, which lead from file to file in the repository, lead from page to page."""
    here = page.file.src_uri

    def rewrite(text: str, link: str, anchor: str) -> str:
        path = resolve(link, repository_path(here))
        target = site_path(path)
        if (ROOT / path).is_dir() and target == source_page(path):
            return f"`{path}/`"
        return f"{text}({posixpath.relpath(target, posixpath.dirname(here) or '.')}{anchor})"

    return replace_links(markdown, rewrite)


def navigation(readme: str) -> list[dict[str, object] | str]:
    """Return the navigation: the rows of README's last table, the API, and pages of docs/ that no row names."""
    table = readme.partition("## Documentation")[2]
    nav: list[dict[str, object] | str] = ["index.md"]
    named: set[str] = set()
    for title, cell in _ROW.findall(table):
        items: list[object] = []
        for path in links(cell, "README.md"):
            found = pages_at(path)
            named.update(found)
            items += [{Path(path).name.capitalize(): found}] if (ROOT / path).is_dir() else found
        nav.append({title[0].upper() + title[1:]: items})
    rest = sorted(set(pages_at(DOCS)) - named)
    if rest:
        nav.append({"More": [*rest]})
    nav.append({"Python API": [{package: api_page(package)} for package in PUBLIC]})
    return nav


def pages_at(path: str) -> list[str]:
    """Return the pages of a file or folder of the repository."""
    if not (ROOT / path).is_dir():
        return [site_path(path)]
    return [site_path(str(file.relative_to(ROOT))) for file in sorted((ROOT / path).rglob("*.md"))]


def mermaid() -> Path | None:
    """Return the file of Mermaid, or None."""
    folder = os.environ.get("SPLITVISOR_MERMAID")
    return Path(folder, MERMAID) if folder else None


def api_page(package: str) -> str:
    """Return the page of a public package."""
    return f"api/{package}.md"


def source_page(path: str) -> str:
    """Return the page that shows a source file of the repository."""
    return f"source/{path}.md"


def site_path(path: str) -> str:
    """Return where the site has a file of the repository. A folder of pages stands for its first page."""
    if path in PAGES:
        return PAGES[path]
    if path in _PACKAGES:
        return api_page(_PACKAGES[path])
    if (ROOT / path).is_dir() and path.startswith(DOCS):
        return pages_at(path)[0]
    return path.removeprefix(f"{DOCS}/") if path.startswith(f"{DOCS}/") else source_page(path)


def repository_path(page: str) -> str:
    """Return the file of the repository that a page is made from."""
    return next((name for name, site in PAGES.items() if site == page), f"{DOCS}/{page}")


def resolve(link: str, origin: str) -> str:
    """Return the path in the repository that a link in the file `origin` names."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))


def links(markdown: str, origin: str) -> list[str]:
    """Return the paths in the repository that a page of the file `origin` links to."""
    found: list[str] = []

    def note(text: str, link: str, anchor: str) -> str:
        found.append(resolve(link, origin))
        return text

    replace_links(markdown, note)
    return found


def replace_links(markdown: str, rewrite: Callable[[str, str, str], str]) -> str:
    """Return the page with each link to a file replaced by rewrite(text, link, anchor). Code stays as it is."""
    lines = []
    fenced = False
    for line in markdown.split("\n"):
        fenced ^= line.startswith("```")
        if fenced or line.startswith("    "):
            lines.append(line)
        else:
            lines.append(
                _LINK.sub(lambda match: match[0] if ":" in match[2] else rewrite(match[1], match[2], match[3] or ""), line)
            )
    return "\n".join(lines)


def listing(path: str) -> str:
    """Return the page of a source file."""
    return f"# {path}\n\n````{Path(path).suffix.removeprefix('.')}\n{(ROOT / path).read_text()}````\n"
