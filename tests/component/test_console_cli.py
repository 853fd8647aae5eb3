# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor console` as scripts use it: real processes at a vio_service."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from splitvisor.cli.app import make_app
from splitvisor.terminal.link import TerminalError
from splitvisor.terminal.script import (
    EscapeError,
    Expectation,
    Found,
    Position,
    PositionError,
    Target,
    expect_text,
    send_text,
    unescape,
)
from splitvisor.terminal.search import RegexSearch, TextSearch
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
        assert (nothing.status, nothing.errors) == (0, "splitvisor console list: no VM with a console is attached there\n")
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
        ("expect", "vm", ""),
        ("expect", "vm", r"\r"),
        ("expect", "vm", "--regex", ""),
        ("expect", "vm", "--regex", "^x*$"),
        ("expect", "vm", "--regex", "(?:(?:){99999}){99999}", "--timeout", "nan"),
        ("expect", "vm", "x", "--timeout", "0"),
        ("expect", "vm", "x", "--timeout", "-1"),
        ("expect", "vm", "x", "--timeout", "1e300"),
        ("expect", "vm", "x", "--from", "12"),
        ("expect", "vm", "x", "--from", "0:5"),
        ("expect", "vm", "x", "--from", "a:1", "--new"),
        ("send", "vm", "x", "--timeout", "inf"),
        ("send", "vm", r"a\q"),
        ("attach", "vm", "--unit", "x"),
        ("log", "none"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(arguments: tuple[str, ...]) -> None:
    vio = () if arguments == ("log", "none") else ("--vio", "unix:/nowhere")
    result = CliRunner().invoke(make_app(), ["console", *arguments, *vio])
    assert result.exit_code == 2, result.output
    lines = result.output.count("\n")
    assert lines == 1 or (lines < 9 and "is not a number from" in result.output), "typer's own errors have a frame"


def test_expect_goes_on_where_a_command_before_stopped() -> None:
    async def scenario(server: BareServer) -> None:
        target = Target(server.address, "vm", 0)

        async def expect(search: TextSearch | RegexSearch, after: Position | None, timeout: float = 20) -> Found | None:
            return await expect_text(target, search, print, timeout=timeout, after=after)

        async with Guest(server.address) as guest:
            guest.post(b"first: ok\r\nold second: ok\r\n")
            await guest.settle()
            sent = await send_text(target, b"go", print, 20)
            assert sent is not None
            # All of the answer is there before anybody looks for it, and in the middle of much else.
            guest.post(b"first: o\r\n" + b"x" * 100_000 + b"second: p\r\n" + b"x" * 200_000 + b"\r\nfirst: q\r\n")
            await guest.settle()
            place, found = sent, []
            for search in (TextSearch(b"first: "), RegexSearch(b"sec[a-z]+: p$"), RegexSearch(b"^first: .$")):
                result = await expect(search, place)
                assert result is not None
                found.append(result.match)
                place = result.position
            assert found == ["first: ", "second: p", "first: q"]
            with pytest.raises(TimeoutError):
                await expect(TextSearch(b"first"), place, 0.3)
            with pytest.raises(TerminalError, match="an earlier life of this console"):
                await expect(TextSearch(b"x"), Position(place.instance ^ 1, 0))
            with pytest.raises(TerminalError, match="99 bytes after all that the console has shown"):
                await expect(TextSearch(b"x"), Position(place.instance, place.offset + 2 + 99))

    run_bare(scenario)


def test_send_and_expect_print_positions() -> None:
    async def scenario(server: BareServer) -> None:
        async with Guest(server.address) as guest:
            sent = (await console(server, "send", "vm", "go", "--position")).output.decode().strip()
            guest.post(b"one two\r\nthree\r\n")
            await guest.settle()
            done = await console(server, "expect", "vm", "two", "--from", sent, "--json")
            answer = json.loads(done.output)
            assert (answer["line"], answer["match"]) == ("one two", "two")
            assert Position.parse(answer["position"]).offset == Position.parse(sent).offset + len(b"one two")

    run_bare(scenario)


async def _expect_for_ever(server: BareServer, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "splitvisor", "console", "expect", "vm", "--regex", "^(a+)+c$", *arguments, "--vio", server.address,
        cwd=ROOT, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


def test_a_search_that_takes_for_ever_ends_with_its_time() -> None:
    async def scenario(server: BareServer) -> None:
        async with Guest(server.address) as guest:
            guest.post(b"a" * 60 + b"\r\n")
            await guest.settle()
            process = await _expect_for_ever(server, "--timeout", "2")
            _, errors = await process.communicate()
            assert process.returncode == 124, errors
            assert errors.startswith(b"splitvisor console expect: not within 2 s: ")
            # A search that hangs is known by its process.
            process = await _expect_for_ever(server)
            children = f"/proc/{process.pid}/task/{process.pid}/children"
            while not (found := Path(children).read_text().split()):
                await asyncio.sleep(0.01)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, errors = await process.communicate()
            assert (process.returncode, errors) == (130, b"")
            assert time.monotonic() - began < 5
            assert not Path(f"/proc/{found[0]}").exists(), "its process has ended with it"

    run_bare(scenario)


@pytest.mark.parametrize("arguments", [("send", "vm", "x", "--timeout", "1"), ("expect", "vm", "x", "--timeout", "1")])
def test_a_service_that_cannot_be_reached_is_named(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Nobody there; and somebody who takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for address in (f"unix:{tmp_path}/nobody", f"127.0.0.1:{silent.getsockname()[1]}"):
            done = asyncio.run(run_console(*arguments, "--vio", address))
            assert (done.status, done.output, done.errors.count("\n")) == (1, b"", 1), done.errors
            assert f"no console of VM 'vm' at {address} within 1 s: " in done.errors
            assert "is the service running?" in done.errors


@pytest.mark.parametrize("text", ["", "1", "1:", ":1", "0:1", "g:1", "1:-1", "11111111111111111:1", f"1:{1 << 64}"])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(PositionError, match="is not a position"):
        Position.parse(text)


def test_a_position_is_what_its_text_says() -> None:
    position = Position(0x6C1F02AB, 4711)
    assert Position.parse(str(position)) == position


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
    async def search() -> Found | None:
        expectation = Expectation(TextSearch(b"ab"))
        offset = 7
        for piece in pieces:
            found = await expectation.feed(Position(1, offset), piece)
            if found is not None:
                return found
            offset += len(piece)
        return None

    whole = b"".join(pieces)
    found = asyncio.run(search())
    assert (found is not None) == (b"ab" in whole.replace(b"\r", b""))
    if found is not None:
        assert whole[: found.position.offset - 7].replace(b"\r", b"").endswith(b"ab")
        assert whole[found.position.offset - 8 : found.position.offset - 7] == b"b"
