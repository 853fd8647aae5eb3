# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a back end cannot be used."""

from __future__ import annotations

from splitvisor.errors.problem import ProblemError


class BackendUnavailableError(ProblemError):
    """A back end cannot be reached or does not keep the contract."""


class BackendRefusedError(ProblemError):
    """A back end does not take the state that it is to restore, or one side does not know a feature that the other relies on."""
