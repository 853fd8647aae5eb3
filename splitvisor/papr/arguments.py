# SPDX-License-Identifier: GPL-2.0-or-later
"""The meaning of calls' arguments, for readers of traces: names and forms of hypercalls, RTAS calls and client services.

A form says how a value is written. A call that is not listed is shown with hexadecimal arguments without names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto

from splitvisor.papr.hcall import Hcall


class Form(Enum):
    """The form in which a value is shown."""

    NUMBER = auto()
    """Decimal."""
    HEX = auto()
    ADDRESS = auto()
    """An address of guest memory, or of a device's memory."""
    UNIT = auto()
    """A unit address of the VIO bus."""
    TEXT_LENGTH = auto()
    """The number of bytes of text in the registers that follow."""
    TEXT = auto()
    """Eight bytes of text in a register."""
    STRING = auto()
    """The address of a NUL-terminated string."""
    PHANDLE = auto()
    IHANDLE = auto()


Arguments = Sequence[tuple[str, Form]]

_N, _X, _A, _U, _S, _P, _I = Form.NUMBER, Form.HEX, Form.ADDRESS, Form.UNIT, Form.STRING, Form.PHANDLE, Form.IHANDLE

HYPERCALLS: Mapping[int, Arguments] = {
    Hcall.H_REMOVE: (("flags", _X), ("pte", _X), ("avpn", _X)),
    Hcall.H_ENTER: (("flags", _X), ("pte", _X), ("pteh", _X), ("ptel", _X)),
    Hcall.H_READ: (("flags", _X), ("pte", _X)),
    Hcall.H_CLEAR_MOD: (("flags", _X), ("pte", _X)),
    Hcall.H_CLEAR_REF: (("flags", _X), ("pte", _X)),
    Hcall.H_PROTECT: (("flags", _X), ("pte", _X), ("avpn", _X)),
    Hcall.H_BULK_REMOVE: tuple((name, _X) for pair in range(4) for name in (f"high{pair}", f"low{pair}")),
    Hcall.H_CLEAR_HPT: (),
    Hcall.H_RESIZE_HPT_PREPARE: (("flags", _X), ("shift", _N)),
    Hcall.H_RESIZE_HPT_COMMIT: (("flags", _X), ("shift", _N)),
    Hcall.H_GET_TCE: (("liobn", _X), ("ioba", _A)),
    Hcall.H_PUT_TCE: (("liobn", _X), ("ioba", _A), ("tce", _X)),
    Hcall.H_PUT_TCE_INDIRECT: (("liobn", _X), ("ioba", _A), ("list", _A), ("count", _N)),
    Hcall.H_STUFF_TCE: (("liobn", _X), ("ioba", _A), ("tce", _X), ("count", _N)),
    Hcall.H_SET_SPRG0: (("value", _X),),
    Hcall.H_SET_DABR: (("value", _X),),
    Hcall.H_SET_XDABR: (("value", _X), ("extended", _X)),
    Hcall.H_PAGE_INIT: (("flags", _X), ("destination", _A), ("source", _A)),
    Hcall.H_LOGICAL_CI_LOAD: (("size", _N), ("address", _A)),
    Hcall.H_LOGICAL_CI_STORE: (("size", _N), ("address", _A), ("value", _X)),
    Hcall.H_LOGICAL_CACHE_LOAD: (("size", _N), ("address", _A)),
    Hcall.H_LOGICAL_CACHE_STORE: (("size", _N), ("address", _A), ("value", _X)),
    Hcall.H_LOGICAL_ICBI: (("address", _A),),
    Hcall.H_LOGICAL_DCBF: (("address", _A),),
    Hcall.H_GET_TERM_CHAR: (("unit", _U),),
    Hcall.H_PUT_TERM_CHAR: (("unit", _U), ("length", Form.TEXT_LENGTH), ("text", Form.TEXT), ("text", Form.TEXT)),
    Hcall.H_EOI: (("xirr", _X),),
    Hcall.H_CPPR: (("priority", _X),),
    Hcall.H_IPI: (("server", _N), ("mfrr", _X)),
    Hcall.H_IPOLL: (("server", _N),),
    Hcall.H_XIRR: (),
    Hcall.H_XIRR_X: (("cppr", _X),),
    Hcall.H_REGISTER_VPA: (("flags", _X), ("vcpu", _N), ("address", _A)),
    Hcall.H_CEDE: (),
    Hcall.H_CONFER: (("vcpu", _X), ("dispatch", _N)),
    Hcall.H_PROD: (("vcpu", _N),),
    Hcall.H_JOIN: (),
    Hcall.H_REG_CRQ: (("unit", _U), ("queue", _A), ("length", _N)),
    Hcall.H_FREE_CRQ: (("unit", _U),),
    Hcall.H_ENABLE_CRQ: (("unit", _U),),
    Hcall.H_VIO_SIGNAL: (("unit", _U), ("mode", _N)),
    Hcall.H_SEND_CRQ: (("unit", _U), ("high", _X), ("low", _X)),
    Hcall.H_COPY_RDMA: (("length", _N), ("from-liobn", _X), ("from", _A), ("to-liobn", _X), ("to", _A)),
    Hcall.H_REGISTER_LOGICAL_LAN: (("unit", _U), ("buffers", _A), ("queue", _X), ("filter", _A), ("mac", _X)),
    Hcall.H_FREE_LOGICAL_LAN: (("unit", _U),),
    Hcall.H_ADD_LOGICAL_LAN_BUFFER: (("unit", _U), ("buffer", _X)),
    Hcall.H_SEND_LOGICAL_LAN: (("unit", _U), *((f"buffer{number}", _X) for number in range(6)), ("continue", _X)),
    Hcall.H_MULTICAST_CTRL: (("unit", _U), ("flags", _X), ("mac", _X)),
    Hcall.H_VTERM_PARTNER_INFO: (("unit", _U), ("partition", _X), ("partner", _U), ("buffer", _A)),
    Hcall.H_REGISTER_VTERM: (("unit", _U), ("partition", _X), ("partner", _U)),
    Hcall.H_FREE_VTERM: (("unit", _U),),
    Hcall.H_GET_CPU_CHARACTERISTICS: (),
    Hcall.H_HOME_NODE_ASSOCIATIVITY: (("flags", _X), ("vcpu", _N)),
    Hcall.H_RANDOM: (),
    Hcall.H_SET_MODE: (("flags", _X), ("resource", _N), ("value1", _X), ("value2", _X)),
    Hcall.H_SIGNAL_SYS_RESET: (("target", _X),),
    Hcall.H_WATCHDOG: (("flags", _X), ("number", _N), ("milliseconds", _N)),
    Hcall.H_RTAS: (("block", _A),),
    Hcall.H_LOGICAL_MEMOP: (("destination", _A), ("source", _A), ("size", _N), ("count", _N), ("operation", _N)),
    Hcall.H_CAS: (("vectors", _A), ("buffer", _A), ("size", _N)),
    Hcall.H_UPDATE_DT: (("tree", _A),),
    Hcall.H_OF_CLIENT: (("block", _A),),
}

RTAS: Mapping[str, Arguments] = {
    "display-character": (("character", _X),),
    "nvram-fetch": (("offset", _X), ("buffer", _A), ("length", _N)),
    "nvram-store": (("offset", _X), ("buffer", _A), ("length", _N)),
    "power-off": (("mask-high", _X), ("mask-low", _X)),
    "query-cpu-stopped-state": (("vcpu", _N),),
    "start-cpu": (("vcpu", _N), ("address", _A), ("r3", _X)),
    "ibm,get-system-parameter": (("parameter", _N), ("buffer", _A), ("length", _N)),
    "ibm,set-system-parameter": (("parameter", _N), ("buffer", _A)),
    "ibm,set-xive": (("source", _X), ("server", _N), ("priority", _X)),
    "ibm,get-xive": (("source", _X),),
    "ibm,int-off": (("source", _X),),
    "ibm,int-on": (("source", _X),),
    "ibm,set-tce-bypass": (("liobn", _X), ("bypass", _N)),
    "ibm,os-term": (("message", _A),),
    "ibm,configure-connector": (("work-area", _A), ("extent", _A)),
    "set-indicator": (("indicator", _N), ("index", _X), ("value", _N)),
    "get-sensor-state": (("sensor", _N), ("index", _X)),
    "event-scan": (("mask", _X), ("critical", _N), ("buffer", _A), ("length", _N)),
    "check-exception": (
        ("vector", _X), ("source", _X), ("mask", _X), ("critical", _N), ("buffer", _A), ("length", _N), ("more", _X),
    ),
    "set-time-of-day": tuple((name, _N) for name in ("year", "month", "day", "hour", "minute", "second", "nanosecond")),
}  # fmt: skip

CLIENT_SERVICES: Mapping[str, Arguments] = {
    "test": (("name", _S),),
    "peer": (("phandle", _P),),
    "child": (("phandle", _P),),
    "parent": (("phandle", _P),),
    "instance-to-package": (("ihandle", _I),),
    "getproplen": (("phandle", _P), ("name", _S)),
    "getprop": (("phandle", _P), ("name", _S), ("buffer", _A), ("length", _N)),
    "nextprop": (("phandle", _P), ("previous", _S), ("buffer", _A)),
    "setprop": (("phandle", _P), ("name", _S), ("buffer", _A), ("length", _N)),
    "canon": (("path", _S), ("buffer", _A), ("length", _N)),
    "finddevice": (("path", _S),),
    "instance-to-path": (("ihandle", _I), ("buffer", _A), ("length", _N)),
    "package-to-path": (("phandle", _P), ("buffer", _A), ("length", _N)),
    "call-method": (("method", _S), ("ihandle", _I)),
    "open": (("path", _S),),
    "close": (("ihandle", _I),),
    "read": (("ihandle", _I), ("buffer", _A), ("length", _N)),
    "write": (("ihandle", _I), ("buffer", _A), ("length", _N)),
    "seek": (("ihandle", _I), ("high", _X), ("low", _X)),
    "claim": (("address", _A), ("size", _X), ("align", _X)),
    "release": (("address", _A), ("size", _X)),
    "boot": (("path", _S),),
    "interpret": (("text", _S),),
}


def string_arguments(service: str) -> Sequence[int]:
    """Return which arguments of a client service are addresses of strings."""
    return [number for number, (_, form) in enumerate(CLIENT_SERVICES.get(service, ())) if form is Form.STRING]
