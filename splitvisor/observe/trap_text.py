# SPDX-License-Identifier: GPL-2.0-or-later
"""A watched call as people and programs read it.

What the guest chose (names, strings, text) is escaped: it may hold what a terminal takes for commands.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from splitvisor.papr.arguments import CLIENT_SERVICES, HYPERCALLS, RTAS, Arguments, Form
from splitvisor.papr.codes import H, RtasStatus
from splitvisor.papr.hcall import Hcall
from splitvisor.rpc import machine_pb2 as pb

REGISTER_BYTES = 8
_KINDS = {
    pb.WATCHED_KIND_HYPERCALL: "hypercall",
    pb.WATCHED_KIND_RTAS: "rtas",
    pb.WATCHED_KIND_CLIENT_SERVICE: "client",
}


def decode_arguments(trap: pb.WatchedTrap) -> list[tuple[str, str]]:
    """Return the arguments: name, empty when it is not known, and value."""
    forms = _forms(trap)
    if any(form is Form.TEXT_LENGTH for _, form in forms) and len(trap.arguments) == len(forms):
        return _text_in_registers(trap.arguments, forms)
    decoded = []
    for number, value in enumerate(trap.arguments):
        name, form = forms[number] if number < len(forms) else ("", Form.HEX)
        decoded.append((name, _value(value, form, trap.strings.get(number))))
    return decoded


def _forms(trap: pb.WatchedTrap) -> Arguments:
    if trap.kind == pb.WATCHED_KIND_RTAS:
        return RTAS.get(trap.name, ())
    if trap.kind == pb.WATCHED_KIND_CLIENT_SERVICE:
        return CLIENT_SERVICES.get(trap.name, ())
    token = Hcall.__members__.get(trap.name)
    return () if token is None else HYPERCALLS.get(token, ())


def _text_in_registers(arguments: Sequence[int], forms: Arguments) -> list[tuple[str, str]]:
    """H_PUT_TERM_CHAR: the registers of text make one argument, as long as the length says."""
    length = next(value for value, (_, form) in zip(arguments, forms, strict=True) if form is Form.TEXT_LENGTH)
    text = b"".join(
        value.to_bytes(REGISTER_BYTES, "big") for value, (_, form) in zip(arguments, forms, strict=True) if form is Form.TEXT
    )
    decoded = [
        (name, _value(value, form, None)) for value, (name, form) in zip(arguments, forms, strict=True) if form is not Form.TEXT
    ]
    return [*decoded, ("text", _quoted(text[: min(length, len(text))]))]


def _value(value: int, form: Form, string: bytes | None) -> str:
    if string is not None:
        return _quoted(string)
    return str(value) if form in (Form.NUMBER, Form.TEXT_LENGTH) else f"{value:#x}"


def _quoted(data: bytes) -> str:
    text = data.decode("latin-1").replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(each if " " <= each <= "~" else ascii(each)[1:-1] for each in text) + '"'


def result_name(trap: pb.WatchedTrap) -> str:
    """Return what came of a call: H_SUCCESS, an RTAS status's name, or a client service's first cell."""
    hypercall = f"H_{H(trap.result).name}" if trap.result in H._value2member_map_ else str(trap.result)
    if trap.kind == pb.WATCHED_KIND_HYPERCALL or not trap.returns or trap.result != H.SUCCESS:
        return hypercall
    first = _signed(trap.returns[0])
    if trap.kind == pb.WATCHED_KIND_RTAS:
        return RtasStatus(first).name if first in RtasStatus._value2member_map_ else str(first)
    return "-1" if first == -1 else f"{trap.returns[0]:#x}"


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word


def as_line(trap: pb.WatchedTrap) -> str:
    """Return one line for people."""
    when = time.strftime("%H:%M:%S", time.localtime(trap.time_ns / 1e9)) + f".{trap.time_ns // 1000 % 1_000_000:06}"
    arguments = ", ".join(f"{name}={value}" if name else value for name, value in decode_arguments(trap))
    results = ", ".join((result_name(trap), *(f"{word:#x}" for word in trap.returns[1:])))
    posted = " posted" if trap.posted else ""
    head = f"{when} {trap.vcpu} {_duration(trap.duration_ns):>8} {trap.owner or 'nobody':<17}"
    return f"{head} {_escaped(trap.name)}({arguments}) = {results}{posted}"


def _duration(nanoseconds: int) -> str:
    if nanoseconds < 1_000_000:
        return f"{nanoseconds / 1e3:.0f} us"
    return f"{nanoseconds / 1e6:.1f} ms" if nanoseconds < 1_000_000_000 else f"{nanoseconds / 1e9:.2f} s"


def _escaped(name: str) -> str:
    return _quoted(name.encode())[1:-1]


def as_object(trap: pb.WatchedTrap) -> Mapping[str, Any]:
    """Return what json.dumps makes one line of: numbers as numbers, decoded arguments beside them."""
    return {
        "time": trap.time_ns / 1e9,
        "vcpu": trap.vcpu,
        "kind": _KINDS.get(trap.kind, "unknown"),
        "call": trap.name,
        "owner": trap.owner,
        "posted": trap.posted,
        "arguments": list(trap.arguments),
        "decoded": [{"name": name, "value": value} for name, value in decode_arguments(trap)],
        "r3": trap.result,
        "returns": list(trap.returns),
        "result": result_name(trap),
        "failed": trap.failed,
        "duration_us": trap.duration_ns / 1e3,
    }
