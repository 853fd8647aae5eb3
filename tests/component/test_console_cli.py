# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor console` as scripts use it: real processes at a vio_service."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from splitvisor.cli.app import make_app
from splitvisor.terminal.script import EscapeError, Expectation, unescape
from tests.component.console_harness import VTY, BareServer, Guest, Viewer, run_bare
from tests.guests.harness import ROOT
from vio_service.console.directory import find_console


@dataclass(frozen=True)
class Done:
    status: int
    output: bytes
    errors: str


async def console(server: BareServer, command: str, *arguments: str, typed: bytes = b"") -> Done:
    return await run_console(command, *arguments, "--vio", server.address, typed=typed)


async def run_console(*arguments: str, typed: bytes = b"", **environment: str) -> Done:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "splitvisor", "console", *arguments, cwd=ROOT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "USER": "tester", **environment},
    )  # fmt: skip
    try:
        output, errors = await process.communicate(typed)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return Done(process.returncode, output, errors.decode())


def test_list_tells_who_is_attached() -> None:
    async def scenario(server: BareServer) -> None:
        async with Guest(server.address, vtys=2) as guest, Viewer(server.address, writer=True, client_name="alice") as alice:
            await alice.opened()
            guest.post(b"12345")
            await guest.settle()
            text, listed = await asyncio.gather(console(server, "list", "vm"), console(server, "list", "--json"))
            assert text.output.startswith(b"vm  0x71000000  5 bytes out, 0 in  alice types\n    alice types, ")
            assert b"\nvm  0x71000001  0 bytes out, 0 in  nobody types\n" in text.output
            first, second = json.loads(listed.output)
            assert (first["writer"], first["clients"][0]["name"], second["clients"]) == ("alice", "alice", [])

    run_bare(scenario)


def test_list_shows_all_that_the_environments_vio_service_has() -> None:
    """As in a container, where no run tells of itself."""

    async def scenario(server: BareServer) -> None:
        nothing = await run_console("list", SPLITVISOR_CONNECT=f"vio={server.address}")
        assert (nothing.status, nothing.errors) == (0, "splitvisor console list: no VM is attached there\n")
        async with Guest(server.address):
            listed = await run_console("list", SPLITVISOR_CONNECT=f"vio={server.address}")
            assert (listed.status, listed.output) == (0, b"vm  0x71000000  0 bytes out, 0 in  nobody types\n")

    run_bare(scenario)


def test_send_types_or_says_who_has_the_console() -> None:
    async def scenario(server: BareServer) -> None:
        async with Guest(server.address, vtys=2) as guest:
            async with Viewer(server.address, writer=True, client_name="alice") as alice:
                await alice.opened()
                refused, other = await asyncio.gather(
                    console(server, "send", "vm", "x"),
                    console(server, "send", "vm", r"a\x1bb\t", "--enter", "--unit", "0x71000001"),
                )
                assert (refused.status, other.status) == (1, 0)
                assert refused.errors == (
                    "splitvisor console send: alice types on this console; take it over with --force, or only read\n"
                )
                assert await guest.read(5, VTY + 1) == b"a\x1bb\t\r"
                assert (await console(server, "send", "vm", "mine", "--force")).status == 0
                assert (await alice.ended()).text.startswith("tester@")
            assert await guest.read(4) == b"mine"

    run_bare(scenario)


def test_expect_finds_a_prompt_in_the_replay_and_an_answer_to_what_it_sends() -> None:
    async def scenario(server: BareServer) -> None:
        async with Guest(server.address) as guest:
            guest.post(b"booting\r\nhost login: ")
            await guest.settle()
            found, late, late_new = await asyncio.gather(
                console(server, "expect", "vm", "login:", "--timeout", "30"),
                console(server, "expect", "vm", "never", "--timeout", "0.5"),
                console(server, "expect", "vm", "login:", "--new", "--timeout", "0.5"),
            )
            assert (found.status, found.output) == (0, b"host login: \n")
            assert (late.status, late.errors) == (124, "splitvisor console expect: not within 0.5 s: 'never'\n")
            assert late_new.status == 124

            asking = asyncio.create_task(console(server, "expect", "vm", "--regex", "^r[o0]+t$", "--send", r"whoami\r", "--new"))
            assert await guest.read(7) == b"whoami\r"
            guest.post(b"whoami\r\nro")
            guest.post(b"ot\r\n# ")
            assert (await asking).output == b"root\n"

            ended = asyncio.create_task(console(server, "expect", "vm", "never"))
            while not find_console(server.traps, "vm", 0).describe().clients:
                await asyncio.sleep(0.01)
            await guest.end()
            assert (await ended).status == 1

    run_bare(scenario)


def test_attach_works_in_pipes_and_says_why_it_ended() -> None:
    async def scenario(server: BareServer) -> None:
        async with Guest(server.address) as guest:
            attached = asyncio.create_task(console(server, "attach", "vm", typed=b"halt\n\x1dq"))
            assert await guest.read(7) == b"halt\n\x1dq"
            guest.post(b"halting\r\n")
            await guest.end()
            done = await attached
            assert (done.status, done.output, done.errors) == (0, b"halting\r\n", "[VM vm: the VM has ended]\n")
        refused = await console(server, "attach", "vm", "--wait", "0.1")
        assert refused.status == 1
        assert "no VM 'vm' is attached" in refused.errors

    run_bare(scenario)


def test_attach_ends_when_nobody_reads_its_output() -> None:
    async def scenario(server: BareServer) -> None:
        async with Guest(server.address):
            read_end, write_end = os.pipe()
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "splitvisor", "console", "attach", "vm", "--read-only", "--vio", server.address,
                cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=write_end, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            os.close(write_end)
            while not find_console(server.traps, "vm", 0).describe().clients:
                await asyncio.sleep(0.01)
            os.close(read_end)
            _, errors = await process.communicate()
            assert (process.returncode, errors) == (0, b"[VM vm: the output was closed]\n")

    run_bare(scenario)


def test_log_prints_and_follows_to_the_end() -> None:
    async def scenario(server: BareServer) -> None:
        async with Guest(server.address) as guest:
            text = os.urandom(50_000).hex().encode()
            guest.post(text)
            await guest.settle()
            whole, tail = await asyncio.gather(console(server, "log", "vm"), console(server, "log", "vm", "--bytes", "9"))
            assert (whole.output, tail.output) == (text, text[-9:])
            following = asyncio.create_task(console(server, "log", "vm", "--follow"))
            while not find_console(server.traps, "vm", 0).describe().clients:
                await asyncio.sleep(0.01)
            guest.post(b"more")
            await guest.end()
            assert (await following).output == text + b"more"

    run_bare(scenario)


@pytest.mark.parametrize(
    "arguments",
    [
        ("expect", "vm"),
        ("expect", "vm", "--regex", "("),
        ("send", "vm", r"a\q"),
        ("attach", "vm", "--unit", "x"),
        ("log", "none"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(arguments: tuple[str, ...]) -> None:
    vio = () if arguments == ("log", "none") else ("--vio", "unix:/nowhere")
    result = CliRunner().invoke(make_app(), ["console", *arguments, *vio])
    assert (result.exit_code, result.output.count("\n")) == (2, 1), result.output


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("a", b"a"),
        (r"\r\n\t\e\\", b"\r\n\t\x1b\\"),
        (r"\x00\xff\x41", b"\x00\xff\x41"),
        ("é", "é".encode()),
        (r"\\x41", rb"\x41"),
    ],
)
def test_escapes(text: str, data: bytes) -> None:
    assert unescape(text) == data


@pytest.mark.parametrize("text", ["\\", r"\q", r"\x4", r"\xzz"])
def test_escapes_that_do_not_exist(text: str) -> None:
    with pytest.raises(EscapeError, match="is not known"):
        unescape(text)


@given(st.lists(st.binary(max_size=9), max_size=9))
def test_a_text_is_found_however_the_output_is_cut(pieces: list[bytes]) -> None:
    expectation = Expectation(re.compile(b"ab"))
    found = [expectation.feed(piece) is not None for piece in pieces]
    assert any(found) == (b"ab" in b"".join(pieces).replace(b"\r", b""))
