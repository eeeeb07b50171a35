"""One endpoint, described once: the router and the OpenAPI document are both made from
it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from aiohttp import web
from pydantic import BaseModel

from voicechat.server.rest.failures import Handler, answering_as_openai, answering_by_contract
from voicechat.server.rest.schemas import ContractError, OpenAIError

JSON = "application/json"
PROJECT = "/projects/{project}"
KEY_ERRORS = (401, 429, 500, 503)
"""HTTP statuses that every endpoint with a key may answer."""
BODY_ERRORS = (400, 401, 408, 413, 429, 500, 503)
"""And those of one that takes a body."""
CHAT_ERRORS = (400, 401, 404, 408, 413, 429, 500, 502, 503)
SPEECH_ERRORS = (400, 401, 404, 408, 413, 415, 429, 500, 502, 503)


class Shape(Enum):
    """The form of an endpoint's errors."""

    CONTRACT = "contract"
    OPENAI = "openai"


@dataclass(frozen=True, slots=True)
class Body:
    """One form of a body; ``model`` None: bytes. Of an event stream it is the model of
    one event.
    """

    content_type: str
    model: type[BaseModel] | None = None


@dataclass(frozen=True, slots=True)
class Parameter:
    """A header or a parameter of the query, which may be left out; ``schema`` is JSON
    Schema.
    """

    place: Literal["header", "query"]
    name: str
    description: str
    schema: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One endpoint under one or more paths."""

    method: str
    paths: tuple[str, ...]
    tag: str
    summary: str
    details: str = ""
    handle: Handler | None = None
    """None: the route is made elsewhere, and only described here."""
    body: type[BaseModel] | None = None
    """What a JSON body holds."""
    forms: tuple[Body, ...] = ()
    """What the body may be besides, or instead."""
    parameters: tuple[Parameter, ...] = ()
    answers: Mapping[int, tuple[Body, ...]]
    errors: tuple[int, ...] = field(default=KEY_ERRORS)
    shape: Shape = Shape.CONTRACT
    needs_key: bool = True

    @property
    def all_paths(self) -> tuple[str, ...]:
        """Every path; those that name a project also without it, as clients write them:
        the key's own serves then.
        """
        written = (
            path.replace(PROJECT, short)
            for path in self.paths
            for short in (PROJECT, "/projects", "")
        )
        return tuple(dict.fromkeys(written))

    @property
    def bodies(self) -> tuple[Body, ...]:
        """All forms of the request's body."""
        return (*((Body(JSON, self.body),) if self.body else ()), *self.forms)

    @property
    def error_model(self) -> type[BaseModel]:
        """What errors look like."""
        return OpenAIError if self.shape is Shape.OPENAI else ContractError

    def routes(self) -> list[web.RouteDef]:
        """One route per path. Errors that ``handle`` raises are answered in the
        operation's form.
        """
        if self.handle is None:
            return []
        answering = answering_as_openai if self.shape is Shape.OPENAI else answering_by_contract
        return [web.route(self.method, path, answering(self.handle)) for path in self.all_paths]
