"""Short-lived tokens: a page's own server fetches one, so that no key is in a page or a
URL.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Annotated

from aiohttp import hdrs, web
from pydantic import Field

from voicechat.errors import RemoteProtocolError, Status
from voicechat.runtime.wall_clock import unix_s
from voicechat.schema.checked import Check, Items, RequestModel, between
from voicechat.schema.json_text import shown
from voicechat.server.auth import OutOfScopeError, Principal
from voicechat.server.rest.backend import Backend
from voicechat.server.rest.bodies import read_body
from voicechat.server.rest.operation import BODY_ERRORS, JSON, Body, Operation
from voicechat.server.rest.schemas import TokenAnswer
from voicechat.store.access import ApiEndpoint, Scope
from voicechat.store.tokens import DEFAULT_LIFE_S, MAX_LIFE_S, TokenGrant

TOKEN_PATH = "/api/open-apis/projects/{project}/tokens"
OFFERED = tuple(endpoint for endpoint in ApiEndpoint if endpoint is not ApiEndpoint.TOKENS)
"""The endpoints a token may have. Tokens cannot create tokens."""
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]{1,255}")

MAX_USER_CHARACTERS = 256

IssueToken = Callable[[TokenGrant, int], Awaitable[str]]


MAX_ENDPOINTS = 100


def _known_endpoints(names: list[str]) -> list[str]:
    allowed = [endpoint.value for endpoint in OFFERED]
    for name in names:
        if name not in allowed:
            raise ValueError(f"{shown(name)} is not one of {', '.join(allowed)}")
    return names


def _origin_form(origin: str) -> str:
    if not _ORIGIN.fullmatch(origin):
        raise ValueError(f"{shown(origin)} is not a web origin such as https://app.example")
    return origin


def _short(user: str) -> str:
    if len(user) > MAX_USER_CHARACTERS:
        raise ValueError(f"{len(user)} characters are more than {MAX_USER_CHARACTERS}")
    return user


_ENDPOINTS = Check(_known_endpoints, {"items": {"enum": [endpoint.value for endpoint in OFFERED]}})


class TokenRequest(RequestModel):
    """What the token permits; every field may be omitted."""

    endpoints: Annotated[list[str], Items(0, MAX_ENDPOINTS, "endpoints"), _ENDPOINTS] = Field(
        default_factory=list
    )
    """The endpoints that the token opens; empty: all that its key opens, but for
    `records`.
    """
    origin: Annotated[str, Check(_origin_form, {"pattern": f"^{_ORIGIN.pattern}$"})] | None = None
    """The web origin that must send it, such as https://app.example."""
    user: Annotated[str, Check(_short, {"maxLength": MAX_USER_CHARACTERS})] | None = None
    """The page's user. Tokens of one user see the same tasks and may resume the same
    streams; without a user only the token's key sees what the token has made.
    """
    expires_in: Annotated[int, between(1, MAX_LIFE_S)] = DEFAULT_LIFE_S
    """Seconds."""


class Tokens:
    """The endpoint."""

    def __init__(self, backend: Backend, issue: IssueToken) -> None:
        self._backend = backend
        self._issue = issue

    def operations(self) -> list[Operation]:
        """List the endpoint."""
        return [
            Operation(
                method="POST",
                paths=(TOKEN_PATH,),
                tag="tokens",
                summary="Make a short-lived token for a browser",
                details="The token stands where a key would: in the header, or in a socket's "
                "`token` parameter. It is accepted once, for this project, for the "
                "named endpoints, from the named origin.",
                handle=self._make,
                body=TokenRequest,
                answers={201: (Body(JSON, TokenAnswer),)},
                errors=BODY_ERRORS,
            )
        ]

    async def _make(self, request: web.Request) -> web.Response:
        async with self._backend.admitted(request, ApiEndpoint.TOKENS) as principal:
            asked = await read_body(request, TokenRequest)
            scope = Scope(projects=(principal.project,), endpoints=_granted(asked, principal))
            grant = TokenGrant(
                key_id=principal.key_id,
                scope=scope,
                origin=asked.origin or "",
                user=asked.user or "",
            )
            token = await self._issue(grant, asked.expires_in)
            expires_at = int(unix_s()) + asked.expires_in
            answer = TokenAnswer(token=token, expires_in=asked.expires_in, expires_at=expires_at)
            headers = {hdrs.CACHE_CONTROL: "no-store"}
            return web.json_response(text=answer.model_dump_json(), status=201, headers=headers)


def _granted(asked: TokenRequest, principal: Principal) -> tuple[ApiEndpoint, ...]:
    """Return the token's endpoints, which never exceed those of its key.

    Raises OutOfScopeError when more was requested.
    """
    if not asked.endpoints:
        granted = tuple(
            endpoint
            for endpoint in OFFERED
            if endpoint is not ApiEndpoint.RECORDS and principal.scope.opens(endpoint)
        )
        if not granted:
            raise RemoteProtocolError(
                Status.INVALID_PARAMETER, "endpoints: the key opens none that a token may"
            )
        return granted
    wanted = tuple(ApiEndpoint(name) for name in asked.endpoints)
    for endpoint in wanted:
        if not principal.scope.opens(endpoint):
            raise OutOfScopeError(f"the key does not open the endpoint {endpoint.value!r}")
    return wanted
