# SPDX-License-Identifier: GPL-2.0-or-later
"""What the gateway is told at its start: addresses, names of the site, tokens, VMs. And the bounds of a tree's JSON."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway_service import trees
from gateway_service.authorization import PERMISSIONS, Action, Principal, Role, StartToken, TokenError, read_tokens, token_sum
from gateway_service.sessions import MAX_SESSIONS, Credential, Sessions
from gateway_service.site import Certificate, check_reach, make_site, parse_address
from gateway_service.vms import parse_connect
from splitvisor.service.serve import SettingError
from splitvisor.tree import fdt
from tests.gateway_process import needs_xterm, token_table
from tests.guests.harness import ROOT


@pytest.mark.parametrize(
    ("text", "host", "port", "path"),
    [
        ("127.0.0.1:0", "127.0.0.1", 0, ""),
        ("localhost:8642", "127.0.0.1", 8642, ""),
        ("[::1]:80", "::1", 80, ""),
        ("unix:/run/web.sock", "", 0, "/run/web.sock"),
    ],
)
def test_an_address_is_an_ip_and_a_port_or_a_socket(text: str, host: str, port: int, path: str) -> None:
    address = parse_address(text)
    assert (address.host, address.port, address.path) == (host, port, path)


@pytest.mark.parametrize("text", ["", "8642", "example.org:80", "127.0.0.1:70000", "127.0.0.1:", "unix:web.sock", ":80"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match="; give"):
        parse_address(text)


@pytest.mark.parametrize(
    ("address", "url", "tls", "allowed"),
    [
        ("127.0.0.1:1", "", False, True),
        ("[::1]:1", "", False, True),
        ("unix:/x", "", False, True),
        ("0.0.0.0:1", "", False, False),
        ("192.0.2.1:1", "", False, False),
        ("192.0.2.1:1", "", True, True),
        ("0.0.0.0:1", "http://127.0.0.1:8642", False, True),
        ("0.0.0.0:1", "https://vms.example.org", False, True),
        ("0.0.0.0:1", "http://vms.example.org", False, False),
        ("127.0.0.1:1", "http://vms.example.org", False, False),
        ("127.0.0.1:1", "vms.example.org", False, False),
        ("127.0.0.1:1", "https://vms.example.org/path", False, False),
    ],
)
def test_tokens_do_not_travel_in_plaintext(address: str, url: str, tls: bool, allowed: bool) -> None:
    if allowed:
        check_reach(parse_address(address), url, tls=tls)
    else:
        with pytest.raises(SettingError, match="; give"):
            check_reach(parse_address(address), url, tls=tls)


def test_a_site_answers_to_its_own_names_only() -> None:
    plain = make_site(parse_address("127.0.0.1:0"), 7000, "", frozenset())
    assert plain.hosts == {"127.0.0.1:7000", "localhost:7000"}
    assert plain.origins == {"http://127.0.0.1:7000", "http://localhost:7000"}
    assert not plain.secure
    secure = make_site(parse_address("192.0.2.1:443"), 443, "", frozenset({"vms.example.org"}))
    assert secure.url == "https://vms.example.org:443"
    assert secure.hosts == {"192.0.2.1:443", "192.0.2.1", "vms.example.org:443", "vms.example.org"}
    assert secure.secure
    forwarded = make_site(parse_address("0.0.0.0:80"), 80, "https://VMs.example.org/", frozenset())
    assert forwarded.url == "https://vms.example.org"
    assert forwarded.hosts == {"vms.example.org"}


def test_a_file_of_tokens_gives_roles_and_vms(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    file.write_text(token_table("alice", "console-write", "web-*", "db") + token_table("bob", "operator", "*"))
    tokens = read_tokens(file)
    assert tokens[token_sum("alice")] == Principal("alice", Role.CONSOLE_WRITE, ("web-*", "db"))
    alice = tokens[token_sum("alice")]
    assert [alice.knows(vm) for vm in ("web-1", "db", "db2", "WEB-1", "")] == [True, True, False, False, False]
    assert tokens[token_sum("bob")].role is Role.OPERATOR


def test_a_file_of_tokens_is_a_text_whatever_editor_wrote_it(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    file.write_text(token_table("alice", "operator", "*"), "utf-8-sig")
    assert read_tokens(file).keys() == {token_sum("alice")}
    file.write_bytes(b"\n" + token_table("Zo\u00e9", "operator", "*").encode("latin-1"))
    with pytest.raises(TokenError, match=r"tokens.toml: not TOML: byte 0xe9 is not UTF-8 \(at line \d, column \d+\); save it"):
        read_tokens(file)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "tables"),
        ("token = 3", "tables"),
        ("= nonsense", "not TOML"),
        (token_table("a", "operator", "*") + "other = 1\n", "nothing else"),
        ("extra = 1\n" + token_table("a", "operator", "*"), "nothing else"),
        (token_table("a", "king", "*"), "role 'king'"),
        (token_table("a", "operator"), "vms"),
        (token_table("", "operator", "*", token="x"), "name"),
        (token_table("a", "operator", "*").replace('sha256 = "', 'sha256 = "0'), "sha256"),
        (token_table("a", "operator", "*", token="x") + token_table("b", "operator", "*", token="x"), "the same sha256 as 'a'"),
    ],
)
def test_a_wrong_file_of_tokens_is_refused_with_its_place(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "tokens.toml"
    file.write_text(text)
    with pytest.raises(TokenError, match=reason) as refused:
        read_tokens(file)
    assert str(refused.value).startswith(str(file))
    assert len(str(refused.value).splitlines()) == 1


def test_every_action_is_granted_to_operators_and_to_nobody_by_accident() -> None:
    assert PERMISSIONS.keys() == set(Action)
    assert all(Role.OPERATOR in roles for roles in PERMISSIONS.values())


def test_sessions_are_bounded_and_end() -> None:
    tokens = StartToken()
    sessions = Sessions(tokens)
    credential = sessions.by_token(tokens.token)
    first = sessions.begin(credential)
    assert sessions.by_cookie(first) == credential
    for _ in range(MAX_SESSIONS):
        last = sessions.begin(credential)
    assert sessions.by_cookie(first) is None
    assert sessions.by_cookie(last) == credential
    sessions.end(last)
    assert sessions.by_cookie(last) is None
    assert sessions.principal(credential) is not None
    assert sessions.principal(Credential(credential.token_sum, 0.0)) is None
    assert sessions.principal(sessions.by_token("guessed")) is None


@pytest.mark.parametrize(
    "texts",
    [
        ["vm=a"],
        ["cpu=x,hcall=y,vio=z"],
        ["vm=a,cpu=x,hcall=y,vio="],
        ["vm=a,cpu=x,hcall=y,vio=z,disk=q"],
        ["vm=a,cpu=x,hcall=y,vio=z"] * 2,
    ],
)
def test_a_vm_is_its_name_and_three_services(texts: list[str]) -> None:
    with pytest.raises(SettingError, match="; give each"):
        parse_connect(texts)


def test_values_are_shown_as_dtc_does_and_cut_when_long() -> None:
    root = fdt.Node("", {"a": b"x\0", "b": b"", "c": b"\0\0\0\1", "long": b"\1" * 5000}, [fdt.Node("n@1")])
    shown = trees.tree_json(fdt.emit(fdt.Tree(root)))
    assert shown["name"] == "/"
    assert dict(shown["properties"])["a"] == '"x"'
    assert dict(shown["properties"])["b"] is None
    assert dict(shown["properties"])["c"] == "<0x01>"
    assert dict(shown["properties"])["long"].endswith(" ... 5000 bytes]")
    assert [child["name"] for child in shown["children"]] == ["n@1"]


def test_a_difference_tells_values_that_are_not_there_from_empty_ones() -> None:
    before, after = (fdt.emit(fdt.Tree(fdt.Node("", properties))) for properties in ({"a": b"x\0"}, {"a": b"", "b": b""}))
    assert trees.diff_json(before, after) == [
        {"path": "/", "name": "a", "kind": "changed", "before": '"x"', "after": None},
        {"path": "/", "name": "b", "kind": "added", "before": None, "after": None},
    ]


def test_a_tree_that_would_fill_the_browser_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "MAX_TEXT", 1000)
    small = fdt.emit(fdt.Tree(fdt.Node("", {"a": b"\1" * 100})))
    large = fdt.emit(fdt.Tree(fdt.Node("", {f"a{index}": b"\1" * 100 for index in range(20)})))
    trees.tree_json(small)
    trees.diff_json(small, small)
    with pytest.raises(trees.TooLargeError):
        trees.tree_json(large)
    with pytest.raises(trees.TooLargeError):
        trees.diff_json(small, large)


@needs_xterm
@pytest.mark.parametrize(
    "arguments",
    [
        ["--listen-http", "0.0.0.0:0"],
        ["--listen-http", "unix:/nonexistent/web.sock"],
        ["--connect", "vm=a,cpu=192.0.2.1:1,hcall=unix:/x,vio=unix:/y"],
        ["--tokens", "/nonexistent.toml"],
        ["--http-tls-cert", "/nonexistent.pem", "--http-tls-key", "/nonexistent.pem"],
    ],
)
def test_a_bad_setting_is_one_line_and_status_2(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "splitvisor.service.main", "gateway", "--listen", f"unix:{tmp_path}/g.sock"]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "; " in done.stderr
    assert done.stdout == ""


def test_pipes_as_tokens_or_a_certificate_are_refused_at_once(tmp_path: Path) -> None:
    pipe, key = tmp_path / "pipe", tmp_path / "key"
    os.mkfifo(pipe)
    key.write_text("a key")
    with pytest.raises(TokenError, match="is not a regular file but a pipe"):
        read_tokens(pipe)
    for files in ((pipe, key), (key, pipe)):
        with pytest.raises(SettingError, match="is not a regular file but a pipe"):
            Certificate(*files)
