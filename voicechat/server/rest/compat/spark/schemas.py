"""The models of Spark's application."""

from typing import Annotated, Any, Literal

from pydantic import Field

from voicechat.schema.chat_options import ChatMessage
from voicechat.schema.checked import Check, Items, RequestModel
from voicechat.server.rest.schemas import ResponseModel

LEAST_PASSWORD = 8
MOST_PASSWORD = 256
"""In characters. Hashing takes longer for longer ones."""


def _short(most: int, least: int = 1) -> Check:
    def check(text: str) -> str:
        if not least <= len(text) <= most:
            raise ValueError(f"{len(text)} characters are not between {least} and {most}")
        return text

    return Check(check, {"minLength": least, "maxLength": most})


Name = Annotated[str, _short(64)]


class LoginRequest(RequestModel):
    """The document's table."""

    username: Name
    password: Annotated[str, _short(MOST_PASSWORD)]


class RegisterRequest(RequestModel):
    """The document's table."""

    username: Name
    password: Annotated[str, _short(MOST_PASSWORD, LEAST_PASSWORD)]
    email: Annotated[str, _short(254, 3)]


class AccountAnswer(ResponseModel):
    """The outcome."""

    code: int
    msg: str


class LoginAnswer(AccountAnswer):
    """The outcome, and what names the user from now on."""

    uuid: str


class DialogRequest(RequestModel):
    """The document's table."""

    dialog: Annotated[list[ChatMessage], Items(1, 1000, "messages")]
    """All of the conversation so far."""
    uuid: str = ""
    """Of the user's login, or a key of this server."""
    username: str = ""


class DialogAnswer(ResponseModel):
    """The reply."""

    code: Literal[0] = 0
    consume_token: int
    """0 if the model does not count."""
    content: str


class ContentAnswer(ResponseModel):
    """What was recognised."""

    code: Literal[0] = 0
    content: str


class SparkHeader(ResponseModel):
    """The state of the answer."""

    code: int
    message: str
    sid: str
    status: Literal[0, 1, 2]
    """First, middle, last."""


class SparkFrame(ResponseModel):
    """A piece of the answer, in Spark's form; the last one has the usage."""

    header: SparkHeader
    payload: dict[str, Any] = Field(default_factory=dict)
