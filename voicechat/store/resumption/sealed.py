"""States encrypted with AES-256-GCM before a store gets them, and conversations named
by their SHA-256.

A sealed state is a version byte, 4 bytes that name the key, a nonce of 12 bytes, the
ciphertext and its tag. Each conversation has a key of its own, computed from the
configured key and the conversation's name (HMAC-SHA256). The store never sees the name,
so somebody who has the store and the configured key still cannot read a state without
the name. Random nonces are safe for 2^32 states of one key (NIST SP 800-38D, 8.3),
which no single conversation reaches.
"""

import hashlib
import hmac
import logging
import secrets
from collections.abc import Collection, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from voicechat.store.resumption.interface import (
    MAX_STATE_BYTES,
    Lease,
    Renewal,
    ResumptionStore,
    StateTooLargeError,
)

_VERSION = b"\x01"
_NAME_BYTES = 4
_NONCE_BYTES = 12
_TAG_BYTES = 16
_HEADER_BYTES = len(_VERSION) + _NAME_BYTES + _NONCE_BYTES
MOST_BYTES = MAX_STATE_BYTES - _HEADER_BYTES - _TAG_BYTES
"""Bound of one state before it is encrypted."""

_log = logging.getLogger(__name__)


class SealedStore(ResumptionStore):
    """Encrypts what another store keeps."""

    def __init__(self, store: ResumptionStore, keys: Sequence[bytes]) -> None:
        """The first of the ``keys`` encrypts; each of them decrypts."""
        self._store = store
        self._keys = {_name_of(key): key for key in keys}
        self._newest = _name_of(keys[0])

    async def start(self) -> None:
        """See ``ResumptionStore.start``."""
        await self._store.start()

    async def acquire(self, conversation: str, owner: str) -> tuple[Lease, bytes | None]:
        """See ``ResumptionStore.acquire``. A state that none of the keys can decrypt
        counts as not kept; this is logged.
        """
        lease, sealed = await self._store.acquire(_digest(conversation), owner)
        state = self._unseal(conversation, sealed) if sealed is not None else None
        return Lease(conversation, owner, lease.fence), state

    async def save(self, lease: Lease, state: bytes) -> None:
        """See ``ResumptionStore.save``."""
        if len(state) > MOST_BYTES:
            raise StateTooLargeError(len(state), MOST_BYTES)
        await self._store.save(_hidden(lease), self._seal(lease.conversation, state))

    async def renew(self, leases: Collection[Lease]) -> Renewal:
        """See ``ResumptionStore.renew``."""
        by_hidden = {_hidden(lease): lease for lease in leases}
        found = await self._store.renew(tuple(by_hidden))
        return Renewal(
            frozenset(by_hidden[lease] for lease in found.lost),
            frozenset(by_hidden[lease] for lease in found.missing),
        )

    async def end(self, lease: Lease) -> None:
        """See ``ResumptionStore.end``."""
        await self._store.end(_hidden(lease))

    async def aclose(self) -> None:
        """See ``ResumptionStore.aclose``."""
        await self._store.aclose()

    def _seal(self, conversation: str, state: bytes) -> bytes:
        header = _VERSION + self._newest + secrets.token_bytes(_NONCE_BYTES)
        cipher = AESGCM(_key_of(self._keys[self._newest], conversation))
        return header + cipher.encrypt(header[-_NONCE_BYTES:], state, header)

    def _unseal(self, conversation: str, sealed: bytes) -> bytes | None:
        header, content = sealed[:_HEADER_BYTES], sealed[_HEADER_BYTES:]
        key = self._keys.get(header[len(_VERSION) : -_NONCE_BYTES])
        if not header.startswith(_VERSION) or len(content) < _TAG_BYTES or key is None:
            _log.error("a conversation cannot be resumed: none of resumption.key encrypted it")
            return None
        try:
            cipher = AESGCM(_key_of(key, conversation))
            return cipher.decrypt(header[-_NONCE_BYTES:], content, header)
        except InvalidTag:
            _log.error("a conversation cannot be resumed: what the store keeps was changed")
            return None


def _hidden(lease: Lease) -> Lease:
    return Lease(_digest(lease.conversation), lease.owner, lease.fence)


def _digest(conversation: str) -> str:
    return hashlib.sha256(conversation.encode()).hexdigest()


def _name_of(key: bytes) -> bytes:
    """Return a public name of a key."""
    return hmac.new(key, b"voicechat resumption: name of this key", hashlib.sha256).digest()[
        :_NAME_BYTES
    ]


def _key_of(key: bytes, conversation: str) -> bytes:
    """Return the key of one conversation."""
    return hmac.new(key, b"voicechat resumption: " + conversation.encode(), hashlib.sha256).digest()
