"""Short-lived tokens for browsers: single use, stored as hashes in the ledger, and
deleted when they expire or the server ends.

A page that contained a key would reveal it to every visitor. Instead the page's own
server, which has the key, requests a token and passes it on.
"""

import hashlib
import json
import secrets
from dataclasses import dataclass

from voicechat.errors import AdmissionError, Status
from voicechat.store.access import ApiEndpoint, Scope
from voicechat.store.ledger import Ledger
from voicechat.store.quotas import QuotaExceededError

TOKEN_PREFIX = "vt_"
CONFIGURED_PREFIX = "ek_"
"""Prefix of a token with a configuration. OpenAI's browser clients accept no other."""
TOKEN_BYTES = 32
DEFAULT_LIFE_S = 60
MAX_LIFE_S = 600
MAX_TOKENS = 10_000
MAX_TOKENS_PER_KEY = 1_000
"""Most unused tokens of one key, so that no key can fill the table."""
_RETRY_S = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGrant:
    """The permissions of a token."""

    key_id: str
    """The key that created the token. The key is charged, and the token becomes invalid
    with it.
    """
    scope: Scope
    origin: str = ""
    """The web origin that must send the token; empty: any."""
    user: str = ""
    """The user of the page. All tokens of a user see what one of them has created. If
    empty, no other token sees it.
    """
    configuration: str = ""
    """The initial configuration of the session that the token opens, in the form of the
    session's protocol; empty for none.
    """


class TokenStore:
    """The tokens of one server, from all its processes.

    Times are seconds of the machine's monotonic clock.
    """

    def __init__(self, ledger: Ledger | None = None) -> None:
        """Without a ``ledger`` the tokens exist only in this object."""
        self._ledger = ledger or Ledger()

    def __len__(self) -> int:
        """The number of stored tokens, including expired ones that are not deleted
        yet.
        """
        return int(self._ledger.fetch_value("SELECT COUNT(*) FROM token"))

    def issue_token(self, grant: TokenGrant, life_s: int, now_s: float) -> str:
        """Create a token; only its hash is stored. Raises ``AdmissionError`` if the key
        or the server has too many.
        """
        token = new_token(grant)
        with self._ledger.transaction():
            if len(self) >= MAX_TOKENS or self._waiting(grant.key_id) >= MAX_TOKENS_PER_KEY:
                self._ledger.execute("DELETE FROM token WHERE expires_s <= ?", now_s)
            if self._waiting(grant.key_id) >= MAX_TOKENS_PER_KEY:
                raise QuotaExceededError(
                    f"the key may have {MAX_TOKENS_PER_KEY} unused tokens", _RETRY_S
                )
            if len(self) >= MAX_TOKENS:
                raise AdmissionError(
                    Status.AT_CAPACITY, "the server holds as many unused tokens as it can"
                )
            self._ledger.execute(
                "INSERT INTO token (digest, key_id, grant, expires_s) VALUES (?, ?, ?, ?)",
                _digest(token),
                grant.key_id,
                _written(grant),
                now_s + life_s,
            )
        return token

    def redeem_token(self, token: str, now_s: float) -> TokenGrant | None:
        """Redeem a token, which is never accepted again. Returns None if it does not
        exist or has expired.

        It is looked up by its hash, so that the timing reveals nothing about other
        tokens.
        """
        if not is_token(token):
            return None
        query = "DELETE FROM token WHERE digest = ? RETURNING key_id, grant, expires_s"
        found = self._ledger.fetch_row(query, _digest(token))
        if found is None:
            return None
        key_id, written, expires_s = found
        return _read(key_id, written) if now_s < expires_s else None

    def _waiting(self, key_id: str) -> int:
        return int(self._ledger.fetch_value("SELECT COUNT(*) FROM token WHERE key_id = ?", key_id))


def new_token(grant: TokenGrant) -> str:
    """Return the text of a new token."""
    prefix = CONFIGURED_PREFIX if grant.configuration else TOKEN_PREFIX
    return prefix + secrets.token_urlsafe(TOKEN_BYTES)


def is_token(text: str) -> bool:
    """Return whether a text has the form of a token."""
    return text.startswith((TOKEN_PREFIX, CONFIGURED_PREFIX))


def written_grant(grant: TokenGrant) -> str:
    """Return a grant with its key as a text, which ``read_grant`` reads."""
    return json.dumps([grant.key_id, _written(grant)])


def read_grant(text: str) -> TokenGrant:
    """Return the grant that ``written_grant`` has written."""
    return _read(*json.loads(text))


def _written(grant: TokenGrant) -> str:
    endpoints = [endpoint.value for endpoint in grant.scope.endpoints]
    return json.dumps(
        [grant.scope.projects, endpoints, grant.origin, grant.user, grant.configuration]
    )


def _read(key_id: str, written: str) -> TokenGrant:
    projects, endpoints, origin, user, configuration = json.loads(written)
    scope = Scope(projects=tuple(projects), endpoints=tuple(map(ApiEndpoint, endpoints)))
    return TokenGrant(
        key_id=key_id, scope=scope, origin=origin, user=user, configuration=configuration
    )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
