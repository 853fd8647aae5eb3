# SPDX-License-Identifier: GPL-2.0-or-later
"""From what `--net` says to the wire of a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from splitvisor.lan.datagram import SocketWire
from splitvisor.lan.options import DatagramNet, Net, StreamNet, SwitchNet, TapNet, UserNet
from splitvisor.lan.pcap import CapturedWire
from splitvisor.lan.stream import stream_wire
from splitvisor.lan.switch import Switches, SwitchPort
from splitvisor.lan.tap import TapWire
from splitvisor.lan.user import user_wire
from splitvisor.lan.wire import Wire


def make_wire(net: Net, vm: str, switches: Switches) -> Wire:
    """Return the wire of a device, to be opened.

    Args:
        net: what it is connected to.
        vm: the VM's name: a peer on another host needs a certificate for it.
        switches: those of this process.

    Raises WireError when what the network needs is not there: a program, a certificate, a directory.
    """
    wire = _MAKERS[type(net)](net, vm, switches)
    return CapturedWire(wire, net.pcap) if net.pcap is not None else wire


def _user(net: Net, _vm: str, _switches: Switches) -> Wire:
    assert isinstance(net, UserNet)
    return user_wire(net)


def _tap(net: Net, _vm: str, _switches: Switches) -> Wire:
    assert isinstance(net, TapNet)
    return TapWire(net)


def _stream(net: Net, vm: str, _switches: Switches) -> Wire:
    assert isinstance(net, StreamNet)
    return stream_wire(net, vm)


def _datagrams(net: Net, _vm: str, _switches: Switches) -> Wire:
    assert isinstance(net, DatagramNet)
    return SocketWire(net)


def _switch(net: Net, vm: str, switches: Switches) -> Wire:
    assert isinstance(net, SwitchNet)
    return SwitchPort(net, vm, switches)


_MAKERS: Mapping[type[Net], Callable[[Net, str, Switches], Wire]] = {
    UserNet: _user,
    TapNet: _tap,
    StreamNet: _stream,
    DatagramNet: _datagrams,
    SwitchNet: _switch,
}
