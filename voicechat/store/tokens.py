"""Short-lived tokens for browsers: single use, kept as hashes in memory, gone when they expire or the server ends.

A page that held a key would show it to everybody who opens it. The page's own server, which has the key, asks for a
token instead and hands that out.
"""

import hashlib
import secrets
from dataclasses import dataclass

from voicechat.errors import AdmissionError, Status
from voicechat.store.access import Scope
from voicechat.store.quotas import QuotaExceededError

TOKEN_PREFIX = "vt_"
TOKEN_BYTES = 32
DEFAULT_LIFE_S = 60
MAX_LIFE_S = 600
MAX_TOKENS = 10_000
MAX_TOKENS_PER_KEY = 1_000
"""Tokens of one key that wait to be used: no key can fill the whole table."""
_RETRY_S = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGrant:
    """What a token is good for."""

    key_id: str
    """The key it was made with: it pays, and the token dies with it."""
    scope: Scope
    origin: str = ""
    """The web origin that must send it; empty: anybody may."""


@dataclass(frozen=True, slots=True)
class _Entry:
    grant: TokenGrant
    expires_s: float


class TokenStore:
    """The tokens of one server. Times are seconds of any one clock."""

    def __init__(self) -> None:
        self._entries: dict[bytes, _Entry] = {}
        self._waiting: dict[str, int] = {}

    def __len__(self) -> int:
        """How many are kept, expired ones that nobody has met yet included."""
        return len(self._entries)

    def issue(self, grant: TokenGrant, life_s: int, now_s: float) -> str:
        """Make a token, which is kept nowhere. Raises ``AdmissionError``: the key, or the server, has too many."""
        if len(self._entries) >= MAX_TOKENS or self._waiting.get(grant.key_id, 0) >= MAX_TOKENS_PER_KEY:
            self._drop_expired(now_s)
        if self._waiting.get(grant.key_id, 0) >= MAX_TOKENS_PER_KEY:
            raise QuotaExceededError(f"the key may have {MAX_TOKENS_PER_KEY} unused tokens", _RETRY_S)
        if len(self._entries) >= MAX_TOKENS:
            raise AdmissionError(Status.AT_CAPACITY, "the server holds as many unused tokens as it can")
        token = TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
        self._entries[_digest(token)] = _Entry(grant, now_s + life_s)
        self._waiting[grant.key_id] = self._waiting.get(grant.key_id, 0) + 1
        return token

    def redeem(self, token: str, now_s: float) -> TokenGrant | None:
        """Use a token up: the same text is never accepted again. None: there is none, or it has expired.

        Looked up by its hash: how long that takes tells nothing about other tokens.
        """
        if not token.startswith(TOKEN_PREFIX):
            return None
        found = self._entries.get(_digest(token))
        if found is None:
            return None
        self._drop(_digest(token))
        return found.grant if now_s < found.expires_s else None

    def _drop_expired(self, now_s: float) -> None:
        """Walk over all of them, a millisecond's work that is done only where the token could not be made without."""
        for digest in [digest for digest, entry in self._entries.items() if now_s >= entry.expires_s]:
            self._drop(digest)

    def _drop(self, digest: bytes) -> None:
        key_id = self._entries.pop(digest).grant.key_id
        self._waiting[key_id] -= 1
        if not self._waiting[key_id]:
            del self._waiting[key_id]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
