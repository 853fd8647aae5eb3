# SPDX-License-Identifier: GPL-2.0-or-later
"""Features of the trap contract: each side names, in hello and offer, those that the other must know to keep it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from splitvisor.errors.problem import ProblemError
from splitvisor.rpc import trap_pb2 as pb

STATE_FOLLOWS = frozenset({pb.BEGINNING_RESTORED, pb.BEGINNING_MOVED})
"""Behind such a hello come restore_state messages."""
_KNOWN = frozenset(pb.Feature.values()) - {pb.FEATURE_UNSPECIFIED}


class UnknownFeatureError(ProblemError):
    """The other side relies on what this one does not know: the stream would mean one thing here and another there."""


def check_features(features: Iterable[int], whose: str, here: str) -> None:
    """Raise UnknownFeatureError when one of the features that the other side relies on is not known.

    Args:
        features: of a hello or an offer.
        whose: the other side, for the message.
        here: this side.
    """
    unknown = sorted(set(features) - _KNOWN)
    if unknown:
        numbers = ", ".join(map(str, unknown))
        raise UnknownFeatureError(f"{whose} relies on feature {numbers}, which {here} does not know", f"use a newer {here}")


def hello_features(beginning: pb.Beginning) -> Sequence[pb.Feature]:
    """What a back end must know for a hello with this beginning."""
    return () if beginning == pb.BEGINNING_RUNNING else (pb.FEATURE_SAVED_STATE,)


def offer_features(
    routes: Sequence[pb.Route], transports: Sequence[pb.Transport], *, pauses: bool = False
) -> Sequence[pb.Feature]:
    """What cpu_service must know for an offer with these routes and transports, whose devices may pause the machine or not."""
    features: list[pb.Feature] = []
    if any(route.HasField("selector") for route in routes):
        features.append(pb.FEATURE_SHARED_CALLS)
    if transports:
        features.append(pb.FEATURE_TRANSPORTS)
    if any(route.posted.call_bytes or route.posted.at_once or route.posted.without_credit for route in routes):
        features.append(pb.FEATURE_POSTED_DOORBELLS)
    if any(route.HasField("buffers") for route in routes):
        features.append(pb.FEATURE_POSTED_BUFFERS)
    if pauses:
        features.append(pb.FEATURE_PAUSES)
    return features
