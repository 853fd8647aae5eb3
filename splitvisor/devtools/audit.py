# SPDX-License-Identifier: GPL-2.0-or-later
"""`./dev audit`: looks up every package of a lock file in an advisory database, with pip-audit.

pip-audit ends with status 1 for a finding and for a database that it cannot reach, and with 0 when it has looked up nothing. Here
these are different: 0 is an answer for every package and no finding, 1 a finding, 3 no answer for at least one package.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any

AUDIT_SECONDS = 900.0
"""For all packages. pip-audit asks for one after the other and waits 15 s for each answer."""


_ERROR = re.compile(r"[\w.]+(?:Error|Timeout|Exception): (.+)")


class Status(IntEnum):
    """How an audit ends; 2 is a usage error, as everywhere."""

    CLEAN = 0
    FOUND = 1
    NO_ANSWER = 3


def audit(lock: Path, options: Sequence[str] = ()) -> Status:
    """Look up what a lock file lists, and print one line for each finding, or why there is no answer.

    Args:
        lock: has hashes for everything that it lists.
        options: for pip-audit, such as --ignore-vuln ID, or --osv-url URL for a copy of the database.
    """
    command = [
        sys.executable, "-P", "-m", "pip_audit", "--requirement", str(lock), "--require-hashes", "--disable-pip",
        "--vulnerability-service", "osv", "--format", "json", "--progress-spinner", "off", *options,
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=AUDIT_SECONDS)
    except subprocess.TimeoutExpired:
        return _no_answer(lock, f"pip-audit has taken more than {AUDIT_SECONDS:.0f} s")
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return _no_answer(lock, _reason(done.stderr) or f"pip-audit ended with status {done.returncode}")
    return judge(lock, packages)


def judge(lock: Path, packages: Sequence[dict[str, Any]]) -> Status:
    """Print what pip-audit found for the packages of a lock file; return what that amounts to.

    A package that the database does not have is in its list with a `skip_reason`, and counts as one without an answer.
    """
    findings = [line for package in packages for line in _findings(package)]
    print(*findings, sep="\n", end="\n" if findings else "")
    if skipped := [package["skip_reason"] for package in packages if "skip_reason" in package]:
        status = _no_answer(lock, f"{len(skipped)} of {len(packages)} have no answer, the first: {skipped[0]}")
        return Status.FOUND if findings else status
    print(f"audit: {len(packages)} packages of {lock.name} looked up, {len(findings)} known vulnerabilities")
    return Status.FOUND if findings else Status.CLEAN


def _findings(package: dict[str, Any]) -> Iterator[str]:
    for each in package.get("vulns", ()):
        fixed = ", ".join(each["fix_versions"]) or "no version yet"
        names = ", ".join([each["id"], *each["aliases"]])
        yield f"{package['name']} {package['version']}: {names}; fixed in {fixed}; {each['description']}"


def _reason(traceback: str) -> str:
    """Return the last error in a traceback of pip-audit's that says more than its name; without one, the last line."""
    lines = traceback.strip().splitlines()
    messages = [match[1] for line in lines if (match := _ERROR.match(line))]
    return [*lines[-1:], *messages[-1:]][-1] if lines else ""


def _no_answer(lock: Path, reason: str) -> Status:
    print(f"audit: the packages of {lock.name} could not be audited: {reason}", file=sys.stderr)
    return Status.NO_ANSWER


if __name__ == "__main__":
    sys.exit(audit(Path(sys.argv[1]), sys.argv[2:]))
