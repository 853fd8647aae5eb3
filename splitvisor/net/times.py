# SPDX-License-Identifier: GPL-2.0-or-later
"""Times in control messages, which are google.protobuf's, and in Python, where they are numbers."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def duration(seconds: float) -> Duration:
    """Return a span of time of at most 10,000 years."""
    made = Duration()
    made.FromNanoseconds(round(seconds * 1e9))
    return made


def seconds(span: Duration) -> float:
    """Return a span of time in seconds; whatever a peer sends has a value, a negative one too."""
    return span.seconds + span.nanos / 1e9


def timestamp(nanoseconds: int) -> Timestamp:
    """Return a time that is given in nanoseconds since 1970."""
    made = Timestamp()
    made.FromNanoseconds(nanoseconds)
    return made
