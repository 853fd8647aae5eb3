# SPDX-License-Identifier: GPL-2.0-or-later
"""The software bill of materials of a wheel, as CycloneDX 1.6: what is installed with its run-time extras, and what is inside it.

cyclonedx-py describes an environment in which the lock file is installed. This module adds what it cannot know there: the
version and the hash of the wheel, the parts of the web page that were taken from npm, and licences in words that are not SPDX's.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

PAGE_LOCK = Path("gateway_service/web/package-lock.json")
_NPM_PREFIX = "node_modules/"


def bill_of_materials(source: Path, environment: Path, wheel: Path) -> str:
    """Return the bill as JSON text, the same for the same arguments and SOURCE_DATE_EPOCH.

    Args:
        source: the sources that the wheel was built from.
        environment: a virtual environment with exactly what requirements.lock lists.
        wheel: named NAME-VERSION-TAGS.whl, as the build does.

    Raises CalledProcessError when cyclonedx-py fails.
    """
    described = subprocess.run(
        [
            sys.executable, "-P", "-m", "cyclonedx_py", "environment", "--output-reproducible", "--output-format", "JSON",
            "--spec-version", "1.6", "--pyproject", str(source / "pyproject.toml"), str(environment / "bin" / "python"),
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    bill: dict[str, Any] = json.loads(described.stdout)
    root = bill["metadata"]["component"]
    root["version"] = wheel.name.split("-")[1]
    root["purl"] = f"pkg:pypi/{root['name']}@{root['version']}"
    root["hashes"] = [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}]
    declared = _declared_licences(environment)
    for component in bill["components"]:
        text = declared.get(component["purl"])
        if "licenses" not in component and text is not None:
            component["licenses"] = [{"license": {"name": text, "acknowledgement": "declared"}}]
    page = list(_page_components(source / PAGE_LOCK))
    bill["components"] += page
    bill["dependencies"] += [{"ref": component["bom-ref"]} for component in page]
    [needed_by_root] = [each for each in bill["dependencies"] if each["ref"] == root["bom-ref"]]
    needed_by_root["dependsOn"] += [component["bom-ref"] for component in page]
    return json.dumps(bill, indent=2, sort_keys=True) + "\n"


def _declared_licences(environment: Path) -> dict[str, str]:
    """Licences of what is installed, by package URL, in the packages' own words."""
    [site] = environment.glob("lib/python*/site-packages")
    return {_purl(each): text for each in distributions(path=[str(site)]) if (text := each.metadata["License"])}


def _purl(distribution: Distribution) -> str:
    return f"pkg:pypi/{distribution.name.lower().replace('_', '-')}@{distribution.version}"


def _page_components(lock: Path) -> Iterator[dict[str, Any]]:
    """What the wheel contains of npm's packages."""
    for path, package in sorted(json.loads(lock.read_text())["packages"].items()):
        if not path:
            continue  # The page itself.
        name, version = path.removeprefix(_NPM_PREFIX), package["version"]
        purl = f"pkg:npm/{name.replace('@', '%40')}@{version}"
        yield {
            "type": "library",
            "bom-ref": purl,
            "name": name,
            "version": version,
            "purl": purl,
            "licenses": [{"license": {"id": package["license"], "acknowledgement": "declared"}}],
        }
