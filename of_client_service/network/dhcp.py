# SPDX-License-Identifier: GPL-2.0-or-later
"""A lease of an address (RFC 2131), and what else the server says: who has which file to boot."""

from __future__ import annotations

import random

from of_client_service.network.dhcp_message import CLIENT_PORT, SERVER_PORT, MessageType, Reply, can_have, parse, request
from of_client_service.network.exchange import Exchange, NetworkError
from of_client_service.network.host import Host
from of_client_service.network.packets import Datagram

DISCOVER_WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""How long offers are waited for after each DISCOVER: longer than a bridge takes that learns of spanning trees before."""
REQUEST_WAITS_S = (1.0, 2.0, 4.0)
_JITTER = 0.1
"""By which part waits differ, so that machines that start together do not go on together (RFC 2131, 4.1)."""


def obtain(host: Host, *, needs_file: bool) -> Exchange[Reply]:
    """Get an address, configure the host with it, and return the server's last word.

    needs_file: of several servers, one is preferred that names a file to boot; others' offers wait as long as the first DISCOVER.
    Raises NetworkError when nobody answers.
    """
    number = random.getrandbits(32)
    began = host.clock()
    refusals = 0
    for wait in DISCOVER_WAITS_S:
        offer = yield from _discover(host, number, began, wait, needs_file=needs_file)
        if offer is None:
            continue
        for patience in REQUEST_WAITS_S:
            _send(host, MessageType.REQUEST, number, began, offer)
            answer = yield from _answer(host, number, (MessageType.ACK, MessageType.NAK), patience, offer)
            if answer is not None:
                break
        if answer is not None and answer.type is MessageType.ACK:
            host.configure(answer.address, answer.prefix, answer.router)
            return answer
        refusals += answer is not None
    if refusals:
        raise NetworkError("the DHCP server refuses what it has offered")
    raise NetworkError(f"no answer to DHCP ({len(DISCOVER_WAITS_S)} requests in {host.clock() - began:.0f} s)")


def _discover(host: Host, number: int, began: float, wait: float, *, needs_file: bool) -> Exchange[Reply | None]:
    """Return the best of the offers that come in time; None: there was none."""
    _send(host, MessageType.DISCOVER, number, began)
    until = host.clock() + wait * random.uniform(1 - _JITTER, 1 + _JITTER)
    best: Reply | None = None
    while (offer := (yield from _answer_until(host, number, (MessageType.OFFER,), until))) is not None:
        if offer.file or not needs_file:
            return offer
        best = best or offer
    return best


def _answer(host: Host, number: int, kinds: tuple[MessageType, ...], wait: float, offer: Reply) -> Exchange[Reply | None]:
    """Return the answer of the server that an offer is of."""
    until = host.clock() + wait * random.uniform(1 - _JITTER, 1 + _JITTER)
    while (reply := (yield from _answer_until(host, number, kinds, until))) is not None:
        if offer.server is None or reply.server == offer.server:
            return reply
    return None


def _answer_until(host: Host, number: int, kinds: tuple[MessageType, ...], until: float) -> Exchange[Reply | None]:
    while (arrival := (yield until)) is not None:
        if not isinstance(arrival, Datagram) or (arrival.source_port, arrival.port) != (SERVER_PORT, CLIENT_PORT):
            continue
        reply = parse(arrival.payload, number, host.mac)
        if reply is not None and reply.type in kinds and (reply.type is MessageType.NAK or can_have(reply.address)):
            return reply
    return None


def _send(host: Host, kind: MessageType, number: int, began: float, chosen: Reply | None = None) -> None:
    message = request(kind, number, host.mac, int(host.clock() - began), chosen)
    host.broadcast((CLIENT_PORT, SERVER_PORT), message)
