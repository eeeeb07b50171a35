"""Client secrets of OpenAI's Realtime protocol: short-lived tokens for browsers, each
bound to the configuration that its session begins with.
"""

import json
from typing import Annotated, Literal

from aiohttp import hdrs, web

from voicechat.dialects.base import Connection
from voicechat.dialects.openai_realtime.session import configuration_from
from voicechat.runtime.wall_clock import unix_s
from voicechat.schema.checked import RequestModel, between
from voicechat.server.auth import OutOfScopeError
from voicechat.server.rest.backend import Backend
from voicechat.server.rest.bodies import read_body
from voicechat.server.rest.operation import BODY_ERRORS, JSON, Body, Operation, Shape
from voicechat.server.rest.schemas import ResponseModel
from voicechat.server.rest.tokens import IssueToken
from voicechat.store.access import ApiEndpoint, Scope
from voicechat.store.tokens import DEFAULT_LIFE_S, MAX_LIFE_S, TokenGrant

PATHS = ("/v1/realtime/client_secrets", "/api/open-apis/v1/realtime/client_secrets")


class SecretLife(RequestModel):
    """How long a client secret is valid."""

    anchor: Literal["created_at"] = "created_at"
    seconds: Annotated[int, between(10, MAX_LIFE_S)] = DEFAULT_LIFE_S
    """From now on."""


class ClientSecretRequest(RequestModel):
    """What is bound to the secret; every field may be omitted."""

    expires_after: SecretLife = SecretLife()
    session: dict[str, object] | None = None
    """The configuration that the session begins with, as in ``session.update``. The
    client may still change it.
    """


class ClientSecretAnswer(ResponseModel):
    """A client secret, which is shown this once."""

    value: str
    expires_at: int
    """Unix time."""
    session: dict[str, object]
    """The session as it will begin."""


class ClientSecrets:
    """The endpoint."""

    def __init__(self, backend: Backend, issue: IssueToken) -> None:
        self._backend = backend
        self._issue = issue

    def operations(self) -> list[Operation]:
        """List the endpoint."""
        return [
            Operation(
                method="POST",
                paths=PATHS,
                tag="tokens",
                summary="Make a client secret for the Realtime socket",
                details="The secret stands where a key would, opens `/v1/realtime` once, and "
                "holds what the session begins with.",
                handle=self._make,
                body=ClientSecretRequest,
                answers={200: (Body(JSON, ClientSecretAnswer),)},
                errors=BODY_ERRORS,
                shape=Shape.OPENAI,
            )
        ]

    async def _make(self, request: web.Request) -> web.Response:
        async with self._backend.admitted(request, ApiEndpoint.TOKENS) as principal:
            asked = await read_body(request, ClientSecretRequest)
            if not principal.scope.opens(ApiEndpoint.CONVERSATION):
                raise OutOfScopeError("the key does not open the endpoint 'conversation'")
            session = {"type": "realtime", **(asked.session or {})}
            connection = Connection()
            begins = configuration_from(session, connection)
            grant = TokenGrant(
                key_id=principal.key_id,
                scope=Scope(projects=(principal.project,), endpoints=(ApiEndpoint.CONVERSATION,)),
                configuration=json.dumps(session),
            )
            life_s = asked.expires_after.seconds
            answer = ClientSecretAnswer(
                value=await self._issue(grant, life_s),
                expires_at=int(unix_s()) + life_s,
                session=begins.described(connection, ""),
            )
            headers = {hdrs.CACHE_CONTROL: "no-store"}
            return web.json_response(text=answer.model_dump_json(), headers=headers)
