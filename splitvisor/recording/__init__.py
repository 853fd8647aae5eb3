# SPDX-License-Identifier: GPL-2.0-or-later
"""Recordings of machines: what cpu_service and its back ends said to each other, kept in a file, and what can be done with one.

The format is in proto/splitvisor/storage/v1/recording.proto; docs/recording.md is for users.
"""

from splitvisor.errors.problem import ProblemError


class RecordingError(ProblemError):
    """A file is not a recording, a damaged one, or cannot be written; the message says which, where, and what to do."""
