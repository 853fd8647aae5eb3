# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor run --transcripts`: the file has what the console showed."""

from __future__ import annotations

from pathlib import Path

from tests.guests.harness import Console


def test_the_transcript_of_a_run_is_what_its_console_showed(short_path: Path) -> None:
    run = Console(("--name", "demo", "--transcripts", str(short_path / "log")), short_path)
    try:
        run.expect("> ")
        listed = run.splitvisor("console", "list", "demo")
        assert str(short_path / "log" / "demo-71000000.log") in listed.stdout
        asked = run.splitvisor("console", "expect", "demo", "--force", "--new", "--send", r"help\r", "power off")
        assert (asked.returncode, asked.stdout.strip()) == (0, "off                  power off")
        assert run.splitvisor("console", "send", "demo", "off", "--enter").returncode == 0
        assert run.wait() == 0
        assert (short_path / "log" / "demo-71000000.log").read_bytes().decode() == run.text
    finally:
        run.close()


def test_transcripts_are_the_started_services_to_keep(short_path: Path) -> None:
    run = Console(("--connect", "vio=unix:/nowhere", "--transcripts", str(short_path)), short_path)
    try:
        assert run.wait() == 2
    finally:
        run.close()
