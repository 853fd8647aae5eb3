# SPDX-License-Identifier: GPL-2.0-or-later
"""`./dev fuzz-cpu`: random instructions on the engine and in QEMU's user mode."""

from __future__ import annotations

import argparse
import random
import re
import signal
import sys
import time

from splitvisor.devtools.fuzz_cpu import batch, emulators
from splitvisor.devtools.fuzz_cpu.campaign import Campaign, report
from splitvisor.devtools.fuzz_cpu.instructions import Instruction, tried

CASES = 1_000_000
PACKAGES = "qemu-user gcc-powerpc64-linux-gnu binutils-powerpc64-linux-gnu"


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    arguments = argparse.ArgumentParser(prog="./dev fuzz-cpu", description=__doc__)
    arguments.add_argument(
        "--cases", type=_count, default=CASES, help="how many, half in each order of bytes (default: %(default)s)"
    )
    arguments.add_argument("--seed", type=int, help="equal seeds make equal cases (default: a new one)")
    arguments.add_argument(
        "--only", type=_pattern, metavar="PATTERN", help="instructions whose mnemonics match this regular expression"
    )
    arguments.add_argument("--order", choices=batch.ORDERS, help="only this order of bytes")
    return arguments


def _count(text: str) -> int:
    value = int(text.replace("_", ""))
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {error}") from error


def main(arguments: list[str] | None = None) -> int:
    """Run; return 0 when every difference has a reason, 1 when one has none, 2 when it cannot run."""
    options = parser().parse_args(arguments)
    missing = batch.missing_tools() + emulators.missing_programs()
    if missing:
        print(f"fuzz-cpu: not found: {', '.join(missing)}; apt-get install {PACKAGES}", file=sys.stderr)
        return 2
    orders = (options.order,) if options.order else batch.ORDERS
    chosen = {order: [each for each in tried(order) if _wanted(options.only, each)] for order in orders}
    if not any(chosen.values()):
        print(f"fuzz-cpu: no instruction that is tried matches {options.only.pattern!r}", file=sys.stderr)
        return 2
    seed = random.SystemRandom().getrandbits(32) if options.seed is None else options.seed
    print(f"{max(map(len, chosen.values()))} instructions, seed {seed}", flush=True)
    failed = False
    handler = signal.signal(signal.SIGINT, _Stop.ask)
    try:
        for order, instructions in chosen.items():
            if instructions and not _Stop.asked:
                failed |= _run(order, instructions, seed, options.cases // len(orders))
    finally:
        signal.signal(signal.SIGINT, handler)
    return int(failed)


class _Stop:
    """^C ends a run after its present batch, with what it has found."""

    asked = False

    @classmethod
    def ask(cls, *_signal: object) -> None:
        """Handle the signal; a second one ends the program."""
        cls.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _wanted(pattern: re.Pattern[str] | None, instruction: Instruction) -> bool:
    return pattern is None or bool(pattern.fullmatch(instruction.name.replace("[.]", "")))


def _run(order: batch.ByteOrder, instructions: list[Instruction], seed: int, cases: int) -> bool:
    campaign = Campaign(order, instructions, seed)
    started = shown = time.monotonic()
    result = None
    try:
        for result in campaign.run(cases):
            now = time.monotonic()
            if _Stop.asked:
                break
            if sys.stdout.isatty() and now - shown > 1:
                shown = now
                print(f"\r{order} endian: {result.cases:,} cases", end="", flush=True)
        assert result is not None
        rate = result.cases / (time.monotonic() - started)
        print(
            f"{order} endian: {result.cases:,} cases, {rate:,.0f} a second; differences: {sum(result.explained.values()):,} with "
            f"a reason, {sum(result.unexplained.values()):,} without"
        )
        for finding in result.findings:
            count = result.unexplained[finding.name]
            print(f"\n{report(campaign.minimise(finding))}\n  {count} such {'case' if count == 1 else 'cases'}")
        return bool(result.unexplained)
    finally:
        campaign.close()


if __name__ == "__main__":
    sys.exit(main())
