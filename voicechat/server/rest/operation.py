"""The description of one endpoint, from which its routes and its part of the OpenAPI
document are made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from aiohttp import web
from pydantic import BaseModel

from voicechat.server.rest.failures import (
    Handler,
    answering_as_openai,
    answering_by_contract,
    answering_with_code,
)
from voicechat.server.rest.schemas import CodedError, ContractError, OpenAIError

JSON = "application/json"
PROJECT = "/projects/{project}"
KEY_ERRORS = (401, 429, 500, 503)
"""HTTP error statuses of every endpoint with a key."""
BODY_ERRORS = (400, 401, 408, 413, 429, 500, 503)
"""HTTP error statuses of an endpoint with a key and a body."""
FIND_ERRORS = (401, 404, 429, 500, 503)
"""HTTP error statuses of an endpoint with a key that names a thing in its path."""
CHAT_ERRORS = (400, 401, 404, 408, 413, 429, 500, 502, 503)
SPEECH_ERRORS = (400, 401, 404, 408, 413, 415, 429, 500, 502, 503)


class Shape(Enum):
    """The form of an endpoint's errors."""

    CONTRACT = "contract"
    OPENAI = "openai"
    CODED = "coded"
    """``code`` and ``message``, which is repeated as ``msg``."""


_ERROR_MODELS: Mapping[Shape, type[BaseModel]] = {
    Shape.CONTRACT: ContractError,
    Shape.OPENAI: OpenAIError,
    Shape.CODED: CodedError,
}
_ANSWERING = {
    Shape.CONTRACT: answering_by_contract,
    Shape.OPENAI: answering_as_openai,
    Shape.CODED: answering_with_code,
}


@dataclass(frozen=True, slots=True)
class Body:
    """One form of a body.

    ``model`` None: bytes. For an event stream it is the model of one event.
    """

    content_type: str
    model: type[BaseModel] | None = None


@dataclass(frozen=True, slots=True)
class Parameter:
    """An optional header or query parameter; ``schema`` is JSON Schema."""

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
    """None for an endpoint that is described here but routed elsewhere."""
    body: type[BaseModel] | None = None
    """The model of a JSON body."""
    forms: tuple[Body, ...] = ()
    """Further forms of the body, or the only ones."""
    parameters: tuple[Parameter, ...] = ()
    answers: Mapping[int, tuple[Body, ...]]
    errors: tuple[int, ...] = field(default=KEY_ERRORS)
    shape: Shape = Shape.CONTRACT
    needs_key: bool = True

    @property
    def all_paths(self) -> tuple[str, ...]:
        """Every path. Paths that name a project also exist without it, as clients write
        them; the key's own project is used then.
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
        """The model of the errors."""
        return _ERROR_MODELS[self.shape]

    def routes(self) -> list[web.RouteDef]:
        """Return one route per path; exceptions of ``handle`` become errors in the
        operation's form.
        """
        if self.handle is None:
            return []
        answering = _ANSWERING[self.shape]
        return [web.route(self.method, path, answering(self.handle)) for path in self.all_paths]
