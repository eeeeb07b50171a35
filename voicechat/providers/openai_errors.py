"""The errors of OpenAI-compatible services, by HTTP status or error object. No I/O.

An error's message may quote the conversation: it is parsed, but only codes are kept.
"""

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from voicechat.errors import CONTEXT_TOO_LONG, FailureKind, ProviderError, RequestRefusedError
from voicechat.providers.lenient_json import read_json

_IDENTIFIER = re.compile(r"[A-Za-z0-9_.\-\[\]]{1,64}")
_REQUEST_AT_FAULT = (400, 413, 422)
"""Statuses about the request; 401, 403 and 404 are about the configuration."""
_CONTEXT_CODES = ("context_length_exceeded", "exceed_context_size_error", "string_above_max_length")
_CONTEXT_SENTENCE = re.compile(
    r"maximum context length|context (length|window|size)|too many (input )?tokens"
    r"|(prompt|input|conversation|history|request)( is| was)? too (long|large)"
    r"|longer than the (model|maximum)"
    r"|(exceeds?|exceeded) (the )?(maximum|max|model('s)?) "
    r"(number of |input |message )?(tokens?|length)"
    r"|(tokens|prompt)[^.]{0,60} too (large|long) for (the )?model|range of input length"
    r"|inputs`? tokens \+"
    r"|(输入|prompt|上下文|内容|消息)[^。]{0,12}(过长|超长|超过|超出|太长)|最大长度",
    re.IGNORECASE,
)
"""Phrases of messages about a conversation that is too long: vLLM, SGLang, llama.cpp,
LM Studio, Mistral, Gemini, Anthropic and DashScope have no code for it, or their own.
"""

HINTS = {
    401: "; see api_key",
    403: "; see api_key",
    404: "; see base_url, which usually ends with /v1, and model",
}
"""The likely configuration error, by status."""


@dataclass(frozen=True, slots=True)
class ErrorObject:
    """The inner object of ``{"error": {"message", "type", "code", "param"}}``. Its
    values may have any type.
    """

    type: object = None
    code: object = None
    param: object = None
    message: object = None

    def codes(self) -> str:
        """The values that are identifiers, not sentences."""
        named = {"type": self.type, "code": self.code, "param": self.param}
        return "".join(
            f", {key} {name}" for key, value in named.items() if (name := _identifier(value))
        )

    @property
    def name(self) -> str:
        """The error code that is shown to clients; empty if there is none."""
        if self.too_long:
            return CONTEXT_TOO_LONG
        code = _identifier(self.code)
        return code if not code.isdecimal() else ""

    @property
    def too_long(self) -> bool:
        """Whether the conversation exceeds the model's context window."""
        said = isinstance(self.message, str) and _CONTEXT_SENTENCE.search(self.message)
        return self.code in _CONTEXT_CODES or self.type in _CONTEXT_CODES or bool(said)


def kind_of_status(status: int) -> FailureKind:
    """Return the kind of failure that an HTTP error status means."""
    match status:
        case 408:
            return FailureKind.TIMEOUT
        case 429:
            return FailureKind.RATE_LIMIT
        case _ if 400 <= status < 500:
            return FailureKind.REJECTED
        case _ if 500 <= status < 600:
            return FailureKind.CONNECTIVITY
        case _:
            return FailureKind.BROKEN


def refusal(provider: str, status: int, body: bytes, headers: Mapping[str, str]) -> ProviderError:
    """Return the failure for an answer with an error status; ``headers`` must be
    case-insensitive.
    """
    answer = read_json(body)
    error = error_in(answer)
    if error is None and isinstance(answer, dict):  # FastAPI and others have no error object
        error = ErrorObject(
            answer.get("type"),
            answer.get("code"),
            None,
            answer.get("detail") or answer.get("message"),
        )
    error = error or ErrorObject()
    said = f"HTTP status {status}{error.codes()}{HINTS.get(status, '')}"
    if status in _REQUEST_AT_FAULT or error.too_long:
        return RequestRefusedError(provider, said, code=error.name)
    return ProviderError(
        provider, kind_of_status(status), said, retry_after_s=_wait_s(headers), code=error.name
    )


def reported(provider: str, error: ErrorObject) -> ProviderError:
    """Return the failure for an error object in an answer with status 200."""
    said = f"the server reported an error{error.codes()}"
    code, name = str(error.code or ""), f"{error.type} {error.code}".lower()
    status = int(code) if code.isdecimal() and len(code) == 3 else None
    if status in _REQUEST_AT_FAULT or error.too_long:
        return RequestRefusedError(provider, said, code=error.name)
    if status is not None:
        kind = kind_of_status(status)
    elif "rate_limit" in name:
        kind = FailureKind.RATE_LIMIT
    elif "server" in name or "overloaded" in name:
        kind = FailureKind.CONNECTIVITY
    else:
        kind = FailureKind.BROKEN
    return ProviderError(provider, kind, said, code=error.name)


def reported_in(provider: str, body: bytes) -> ProviderError | None:
    """Return the failure that a whole answer reports, or None."""
    error = error_in(read_json(body))
    return None if error is None else reported(provider, error)


def error_in(answer: object) -> ErrorObject | None:
    """Return the error object of an answer, or None if there is none or it is empty.

    Besides OpenAI's form there are an ``error`` that is a text (Ollama), a list around
    the object (Gemini), and an object that is the error itself (``"object": "error"``:
    vLLM).
    """
    if isinstance(answer, list) and answer:
        answer = answer[0]
    if not isinstance(answer, dict):
        return None
    error = answer.get("error")
    if error and isinstance(error, str):
        return ErrorObject(answer.get("error_type"), answer.get("code"), None, error)
    if answer.get("object") == "error":
        error = answer
    if isinstance(error, dict) and any(error.values()):
        return ErrorObject(
            error.get("type"), error.get("code"), error.get("param"), error.get("message")
        )
    return None


def _identifier(value: object) -> str:
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return text if _IDENTIFIER.fullmatch(text) else ""


def _wait_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of ``Retry-After`` (RFC 9110, section 10.2.3), or of
    ``retry-after-ms``, which OpenAI and Azure add.
    """
    with suppress(KeyError, ValueError):
        return _seconds(float(headers["retry-after-ms"]) / 1000)
    with suppress(KeyError, ValueError):
        return _seconds(float(headers["Retry-After"]))
    with suppress(KeyError, ValueError, TypeError):  # a date, by the server's clock
        until, now = (parsedate_to_datetime(headers[name]) for name in ("Retry-After", "Date"))
        return _seconds((until - now).total_seconds())
    return None


def _seconds(wait_s: float) -> float | None:
    return wait_s if 0 <= wait_s < math.inf else None
