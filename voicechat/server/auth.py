"""Authentication and authorisation of requests by key or token; `origins` checks pages.

A key may be in the ``Authorization`` header or, since a browser's WebSocket cannot set
one, in the query or in the name of a subprotocol. Keys are never logged, not even in
part.
"""

import asyncio
import hmac
import logging
import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field

from aiohttp import hdrs, web

from voicechat.errors import AdmissionError, ConfigError, Status
from voicechat.runtime.wall_clock import unix_s
from voicechat.server.auth_throttle import AuthThrottle
from voicechat.server.cluster import Cluster
from voicechat.server.listener import is_loopback
from voicechat.server.origins import ALLOW_IT, Origins, came_through_proxy, origin_of, same_origin
from voicechat.store.access import EVERYTHING, ApiEndpoint, Grant, Quota, Scope
from voicechat.store.keys import MAX_KEY_CHARACTERS, KeyStore, digest
from voicechat.store.ledger import Ledger
from voicechat.store.quotas import Account, Accounts
from voicechat.store.tokens import TokenGrant, TokenStore, is_token, new_token

DEFAULT_PROJECT = "default"
"""The project of requests whose path names none, unless their key is bound to
others.
"""

SECRET_PARAMETERS = ("token", "apikey", "authorization")
"""Query parameters that hold a key: they must never reach a dialect or a log."""

SECRET_PROTOCOL = "openai-insecure-api-key."
"""Prefix of a subprotocol name that holds a key, as OpenAI's browser clients offer it.
The server never selects it.
"""

_HOLDER_DIGITS = 32
MAX_CANDIDATES = 8
"""Bound of the texts of one request that are tried as keys."""

# "Bearer k" after URL decoding; "Bearer+k" when a client escaped the plus sign of an
# already escaped space; "Bearerk" when it took the original document at its word.
_SCHEME = re.compile(r"Bearer[ +]*", re.IGNORECASE)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who sent a request, and for which project."""

    key_id: str
    project: str = DEFAULT_PROJECT
    scope: Scope = EVERYTHING.scope
    """The part of the key's scope that this request may pass on to a token."""
    holder: str = ""
    """The user or token that the request is for, among all that use this key. Empty
    means the key itself, which sees everything they have made.
    """
    configuration: str = ""
    """The configuration that the session begins with, if the token is bound to one."""
    account: Account = field(default_factory=lambda: Account(Quota(), unix_s))
    """The key's account; wrap whatever takes time in ``account.session()``."""
    keyless: bool = False
    """Whether the caller has no key, because its endpoint trusts every caller;
    ``key_id`` then names the endpoint.
    """


@dataclass(frozen=True, slots=True)
class _Credential:
    """A recognised key or token, before its scope is checked."""

    key_id: str
    grant: Grant
    origin: str = ""
    holder: str = ""
    configuration: str = ""
    operator: bool = False
    """Whether it is the key of whoever runs the server, which opens everything."""


class OutOfScopeError(AdmissionError):
    """The key or token is valid but does not allow this request. A retry with it fails
    again.
    """

    def __init__(self, message: str) -> None:
        super().__init__(Status.NOT_AUTHORISED, f"token: {message}")


class Authoriser:
    """Authorises requests; one instance per process of the server.

    ``static_keys`` are keys by id that are known in plain text: the environment's, or
    the server's own on loopback. They have full scope and no quota. Usage and unused
    tokens are in the ``ledger``, which the processes share; failed attempts are counted
    by each process for itself.
    """

    def __init__(
        self,
        keys: KeyStore,
        static_keys: dict[str, str],
        origins: Origins | None = None,
        ledger: Ledger | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        """Without ``origins`` only pages of this host may connect. With a ``cluster``,
        its machines count together and accept each other's tokens.
        """
        self._keys = keys
        self._static_digests = {key_id: digest(key) for key_id, key in static_keys.items()}
        self.origins = origins or Origins()
        self._ledger = ledger = ledger or Ledger()
        self._tokens = TokenStore(ledger)
        self._cluster = cluster
        self._attempts = AuthThrottle()
        self._reading: asyncio.Future[None] | None = None
        self._readable = True
        self.accounts = Accounts(unix_s, ledger)

    async def __call__(
        self, request: web.Request, endpoint: ApiEndpoint, keys: Collection[str] = ()
    ) -> Principal:
        """Authorise a request to ``endpoint``, and count it. ``keys`` are tried after
        the keys in the request's headers, query and subprotocols.

        Raises AdmissionError: NOT_AUTHORISED, delayed when its sender has failed often,
        QUOTA, or AT_CAPACITY when the ledger cannot be written for 2 s, or a token
        cannot be checked.
        """
        address = self.origins.client_address(request)
        if not self.origins.may_connect(request):
            _log.info("refused %s: its Origin is not in server.allowed_origins", address)
            raise AdmissionError(
                Status.NOT_AUTHORISED,
                f"pages of the origin {origin_of(request)} may not connect: {ALLOW_IT}",
            )
        credential = await self._recognise_any([*request_keys(request), *keys])
        if credential is None:
            _log.info("refused %s: no valid key", address)
            await self._attempts.delay_refusal(address)
            raise AdmissionError(Status.NOT_AUTHORISED, "token: a valid key is required")
        project = _project(request, credential, endpoint)
        account = self.accounts.account_of(credential.key_id, credential.grant.quota)
        await self._begin_request(account)
        return Principal(
            credential.key_id,
            project,
            credential.grant.scope,
            credential.holder,
            credential.configuration,
            account,
        )

    async def admit_key(self, key: str, address: str, endpoint: ApiEndpoint) -> Principal:
        """Authorise a client at ``address`` that sent ``key`` in its first frames.

        Like ``__call__``, but pages are refused.
        """
        credential = await self._recognise(key) if key else None
        if credential is None or credential.origin:
            _log.info("refused %s: no valid key", address)
            await self._attempts.delay_refusal(address)
            raise AdmissionError(Status.NOT_AUTHORISED, "a valid key is required")
        scope = credential.grant.scope
        if not scope.opens(endpoint):
            raise OutOfScopeError(f"the key does not open the endpoint {endpoint.value!r}")
        account = self.accounts.account_of(credential.key_id, credential.grant.quota)
        await self._begin_request(account)
        project = scope.projects[0] if scope.projects else DEFAULT_PROJECT
        return Principal(
            credential.key_id, project, scope, credential.holder, credential.configuration, account
        )

    async def issue_token(self, grant: TokenGrant, life_s: int) -> str:
        """Make a token that this server, or one machine of its cluster, will accept
        once.

        Raises AdmissionError when there are too many, or the cluster is away.
        """
        if self._cluster is not None:
            token = new_token(grant)
            await self._cluster.issue_token(token, grant, life_s)
            return token
        return self._tokens.issue_token(grant, life_s, asyncio.get_running_loop().time())

    async def _begin_request(self, account: Account) -> None:
        account.begin_request(asyncio.get_running_loop().time())
        if self._cluster is not None:
            await self._cluster.begin_request(account)

    async def _redeem(self, text: str) -> TokenGrant | None:
        if self._cluster is None:
            return self._tokens.redeem_token(text, asyncio.get_running_loop().time())
        return await self._cluster.redeem_token(text) if is_token(text) else None

    async def account_of(self, key_id: str) -> Account:
        """Return the account of a key.

        A key that no longer exists gets an unlimited account. While the key file cannot
        be read, the keys read last count, so that a task can continue.
        """
        with suppress(AdmissionError):  # already logged
            await self._refresh()
        key = self._keys.valid_key(key_id, unix_s())
        return self.accounts.account_of(key_id, key.grant.quota if key else Quota())

    async def invalid_of(self, key_ids: Collection[str]) -> frozenset[str]:
        """Return the subset of the keys that are no longer valid: revoked or expired.

        While the key file cannot be read, these are the keys that were invalid before
        or have expired since. Raises nothing.
        """
        with suppress(AdmissionError):  # already logged
            await self._refresh()
        ended = self._keys.ended_keys(key_ids, unix_s()) - self._static_digests.keys()
        self.accounts.close_all_but(self._keys.valid_ids(unix_s()) | self._static_digests.keys())
        return ended

    async def _recognise_any(self, keys: Collection[str]) -> _Credential | None:
        """Return the credential of the first text that is a key or token."""
        for key in keys:
            if (credential := await self._recognise(key)) is not None:
                return credential
        return None

    async def _recognise(self, key: str) -> _Credential | None:
        if len(key) > MAX_KEY_CHARACTERS:
            return None
        await self._ledger.until_free()
        offered = digest(key)
        for key_id, expected in self._static_digests.items():
            if hmac.compare_digest(expected, offered):
                return _Credential(key_id, EVERYTHING, operator=True)
        await self._refresh()
        token = await self._redeem(key)
        if token is not None:
            return self._credential_of(token, _holder(token, offered))
        found = self._keys.find_key(key, unix_s())
        return _Credential(found.id, found.grant) if found else None

    def _credential_of(self, token: TokenGrant, holder: str) -> _Credential | None:
        """Return the credential of a token: its own scope, with its key's quota.

        Returns None if the key is no longer valid.
        """
        if token.key_id in self._static_digests:
            grant = Grant(scope=token.scope)
        else:
            key = self._keys.valid_key(token.key_id, unix_s())
            if key is None:
                return None
            grant = Grant(scope=token.scope, quota=key.grant.quota)
        return _Credential(token.key_id, grant, token.origin, holder, token.configuration)

    async def _refresh(self) -> None:
        """Read the key file if it has changed. Concurrent callers share one read."""
        try:
            if self._keys.stale:
                if self._reading is None or self._reading.done():
                    self._reading = asyncio.get_running_loop().run_in_executor(
                        None, self._keys.refresh
                    )
                    self._reading.add_done_callback(_look_at)  # every waiter may be gone by then
                await asyncio.shield(self._reading)
        except ConfigError as error:
            # Refuse all requests: any key may have been revoked.
            if self._readable:
                _log.error("%s", error)
            self._readable = False
            raise AdmissionError(
                Status.INTERNAL, "the keys cannot be read now; try again"
            ) from error
        if not self._readable:
            _log.info("the keys can be read again")
        self._readable = True


def holder_of_user(user: str) -> str:
    """Return the holder's name of a user for whom tokens are made."""
    return f"user-{digest(user).hex()[:_HOLDER_DIGITS]}"


def _holder(token: TokenGrant, digest_of_token: bytes) -> str:
    """Return a name for the owner of what a token makes: its user, else the token
    itself.

    The name contains no separators.
    """
    if token.user:
        return holder_of_user(token.user)
    return f"token-{digest_of_token.hex()[:_HOLDER_DIGITS]}"


def _look_at(reading: asyncio.Future[None]) -> None:
    if not reading.cancelled():
        reading.exception()


def require_metrics_key(request: web.Request, key: str, origins: Origins) -> None:
    """Authorise a request for the metrics: with ``key``, or from this machine if no key
    is configured.

    A request that came through a proxy is not from this machine, whether the proxy is
    trusted or not. Raises AdmissionError.
    """
    if key:
        expected = digest(key)
        if any(hmac.compare_digest(expected, digest(offered)) for offered in request_keys(request)):
            return
        raise AdmissionError(
            Status.NOT_AUTHORISED, "the metrics need the key of server.metrics_key"
        )
    if came_through_proxy(request) or not is_loopback(origins.client_address(request)):
        message = "metrics are for this machine only, unless server.metrics_key is set"
        raise AdmissionError(Status.NOT_AUTHORISED, message)


def _project(request: web.Request, credential: _Credential, endpoint: ApiEndpoint) -> str:
    """Return the project: the path's, else the key's own.

    Raises OutOfScopeError when the key does not open it.
    """
    scope = credential.grant.scope
    if credential.origin and not same_origin(
        request.headers.get(hdrs.ORIGIN, ""), credential.origin
    ):
        raise OutOfScopeError("it was made for pages of another origin")
    if not (scope.opens(endpoint) or credential.operator):
        raise OutOfScopeError(f"the key does not open the endpoint {endpoint.value!r}")
    own = scope.projects[0] if scope.projects else DEFAULT_PROJECT
    project = request.match_info.get("project", own)
    if not scope.serves(project):
        raise OutOfScopeError("the key does not open this project")
    return project


def offered_protocols(request: web.Request) -> list[str]:
    """Return the WebSocket subprotocols that a client offers, those that hold a key
    among them.
    """
    offered = ",".join(request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, []))
    return [name.strip() for name in offered.split(",") if name.strip()]


def request_keys(request: web.Request) -> list[str]:
    """Return every text of a request that may be a key, each once, the headers' first.

    A proxy with its own sign-on adds its own ``Authorization`` header, so several are
    tried. For a text with a scheme in front, ``Bearer k``, ``Bearer+k`` or ``Bearerk``,
    the rest is a candidate, and the whole text too. Texts with another scheme, such as
    ``Basic``, are skipped.
    """
    written = request.headers.getall(hdrs.AUTHORIZATION, [])
    written = [each for each in written if _SCHEME.match(each.strip()) or " " not in each.strip()]
    written += [
        name.removeprefix(SECRET_PROTOCOL)
        for name in offered_protocols(request)
        if name.startswith(SECRET_PROTOCOL)
    ]
    for name in SECRET_PARAMETERS:
        written += request.rel_url.query.getall(name, [])
    candidates = (
        key for each in written for key in (_SCHEME.sub("", each.strip(), count=1), each.strip())
    )
    return list(dict.fromkeys(key for key in candidates if key))[:MAX_CANDIDATES]
