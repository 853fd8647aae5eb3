# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a back end cannot be used."""

from __future__ import annotations


class BackendUnavailableError(Exception):
    """A back end cannot be reached or does not keep the contract."""


class BackendRefusedError(Exception):
    """A back end does not take the state that it is to restore."""
