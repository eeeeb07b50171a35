"""Error responses of REST: in the contract's form, or on the chat endpoints in
OpenAI's, so that its SDKs raise their own exceptions.
"""

import functools
import math
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from aiohttp import hdrs, web

from voicechat.errors import (
    AdmissionError,
    AtCapacityError,
    FailureKind,
    Fault,
    ProviderError,
    RequestRefusedError,
    Status,
    VoiceChatError,
)
from voicechat.server.auth import OutOfScopeError
from voicechat.server.error_responses import (
    ErrorResponder,
    can_respond,
    client_error,
    error_response,
    set_error_form,
)
from voicechat.server.rest.cancel_on_disconnect import ClientGoneError
from voicechat.server.rest.schemas import CodedError, OpenAIError, OpenAIErrorBody
from voicechat.store.quotas import QuotaExceededError

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

CLIENT_GONE = 499
"""Logged, never sent: nginx's status for it."""

# The types and codes of OpenAI's own service.
_TYPES = {401: "authentication_error", 429: "rate_limit_error"}
_CODES = {Status.NOT_AUTHORISED: "invalid_api_key", Status.NOT_FOUND: "model_not_found"}


_SERVICES: dict[Fault | Status, tuple[str, str]] = {
    Fault.LLM_FAILED: ("chat model", "the chat model failed"),
    Fault.TTS_FAILED: ("speech service", "speech synthesis failed"),
    Fault.ASR_FAILED: ("recognition service", "recognition failed"),
    Status.MEDIA_FAILED: ("picture or video service", "the picture or video service failed"),
}
"""The name of a service, and the message of its failure."""


class ServiceFailedError(VoiceChatError):
    """A chat model or synthesiser failed.

    ``message`` may be shown to the client: it contains no text of the service.
    """

    def __init__(
        self, status: Status, message: str, *, code: str = "", retry_after_s: float | None = None
    ) -> None:
        """``code``: the service's own code of the failure, for OpenAI's form; empty:
        derived from ``status``.

        ``retry_after_s``: seconds after which a retry is allowed, if the service states
        it.
        """
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.retry_after_s = retry_after_s


def service_failed(
    fault: Fault | Status, error: ProviderError, name: str = ""
) -> ServiceFailedError:
    """Return the parts of a service's failure that a client may see. ``fault`` names
    the service, unless it has a ``name`` of its own.

    A failure caused by the request keeps its meaning: a refusal becomes a 400 with the
    service's code, a rate limit a 429. Any other failure is the fault of the service or
    its configuration, and becomes a 502.
    """
    service, failed = (name, f"the {name} failed") if name else _SERVICES[fault]
    named = f": {error.code}" if error.code else ""
    if isinstance(error, RequestRefusedError):
        message = f"the {service} refuses the request{named}"
        return ServiceFailedError(Status.INVALID_PARAMETER, message, code=error.code)
    if error.kind is FailureKind.RATE_LIMIT:
        message = f"the {service} is asked too often{named}"
        code = error.code or "rate_limit_exceeded"
        return ServiceFailedError(
            Status.QUOTA, message, code=code, retry_after_s=error.retry_after_s
        )
    status = Status.of(fault) if isinstance(fault, Fault) else fault
    return ServiceFailedError(status, f"{failed}: {error.kind.value}")


def openai_failure(error: ServiceFailedError) -> OpenAIError:
    """Convert the failure of a service to OpenAI's form."""
    return openai_error(error.status, error.message, error.code)


def openai_error(status: Status, message: str, code: str = "") -> OpenAIError:
    """Convert an error to OpenAI's form. ``param`` is the field, if the message begins
    with one.
    """
    http_status = status // 100
    field, colon, _ = message.partition(": ")
    named = colon and " " not in field and status in (Status.INVALID_PARAMETER, Status.NOT_FOUND)
    kind = _TYPES.get(http_status, "invalid_request_error" if http_status < 500 else "server_error")
    code = code or _CODES.get(status, status.name.lower())
    body = OpenAIErrorBody(message=message, type=kind, param=field if named else None, code=code)
    return OpenAIError(error=body, message=message)


def answering_as_openai(handler: Handler) -> Handler:
    """Wrap ``handler``: its exceptions become responses in OpenAI's form."""

    def answer(status: Status, message: str, code: str = "") -> web.Response:
        return web.json_response(
            text=openai_error(status, message, code).model_dump_json(), status=status // 100
        )

    return _answering(handler, answer)


def answering_by_contract(handler: Handler) -> Handler:
    """Wrap ``handler``: its exceptions become responses in the contract's form."""
    return _answering(handler, error_response)


def answering_with_code(handler: Handler) -> Handler:
    """Wrap ``handler``: its exceptions become responses with a code."""

    def answer(status: Status, message: str, code: str = "") -> web.Response:
        error = CodedError(code=int(status), message=message, msg=message)
        return web.json_response(text=error.model_dump_json(), status=status // 100)

    return _answering(handler, answer)


def _answering(handler: Handler, answer: ErrorResponder) -> Handler:
    @functools.wraps(handler)
    async def answered(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except (ClientGoneError, ConnectionError):
            return web.Response(status=CLIENT_GONE)
        except ServiceFailedError as error:
            failure = answer(error.status, error.message, error.code)
            failure.headers.update(_headers_about(error))
            return failure
        except Exception as error:
            if not can_respond(request, error):
                raise
            refusal = answer(*client_error(error))
            refusal.headers.update(_headers_about(error))
            return refusal

    set_error_form(answered, answer)
    return answered


def _headers_about(error: Exception) -> dict[str, str]:
    """Return the headers about an error: when to retry, or whether the key is invalid
    or its scope insufficient (RFC 6750, 3).
    """
    match error:
        case QuotaExceededError() | AtCapacityError():
            return {hdrs.RETRY_AFTER: str(error.retry_after_s)}
        case ServiceFailedError(retry_after_s=float() | int() as wait_s):
            return {hdrs.RETRY_AFTER: str(math.ceil(wait_s))}
        case OutOfScopeError():
            return {hdrs.WWW_AUTHENTICATE: 'Bearer error="insufficient_scope"'}
        case AdmissionError(status=Status.NOT_AUTHORISED):
            return {hdrs.WWW_AUTHENTICATE: 'Bearer error="invalid_token"'}
        case _:
            return {}
