# SPDX-License-Identifier: GPL-2.0-or-later
"""What a browser has instead of a token: a session, in a cookie that scripts cannot read.

A cookie goes to every port of its host, so it does not hold the token: a session is good for this gateway, until it ends, and for
as long as its token is.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from gateway_service.authorization import Principal, Tokens, token_sum

SESSION_SECONDS = 12 * 3600
MAX_SESSIONS = 1000
"""When there are more, the oldest ends."""


@dataclass(frozen=True)
class Credential:
    """A token that was shown, now or when the session began."""

    token_sum: str
    expires: float
    """time.monotonic(), in seconds."""


class Sessions:
    """Finds out who asks."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._sessions: dict[str, Credential] = {}

    def by_token(self, token: str) -> Credential:
        """Return what a token is good for; principal() tells whether that is anything."""
        return Credential(token_sum(token), time.monotonic() + SESSION_SECONDS)

    def by_cookie(self, session: str) -> Credential | None:
        """Return what a session stands for."""
        return self._sessions.get(token_sum(session))

    def principal(self, credential: Credential) -> Principal | None:
        """Return who that is at this moment: a token may have been taken back."""
        return self._tokens.principal(credential.token_sum) if time.monotonic() < credential.expires else None

    def begin(self, credential: Credential) -> str:
        """Return a new session for the cookie."""
        while len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        session = secrets.token_urlsafe(32)
        self._sessions[token_sum(session)] = credential
        return session

    def end(self, session: str) -> None:
        """Forget a session; an unknown one is no error."""
        self._sessions.pop(token_sum(session), None)
