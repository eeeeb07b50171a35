"""What OpenAI-compatible services say when they fail, by status or by error object. No I/O.

An error's own sentence may quote the conversation: only its codes are kept.
"""

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime

from pydantic import BaseModel, ValidationError

from voicechat.errors import FailureKind, ProviderError

_IDENTIFIER = re.compile(r"[A-Za-z0-9_.\-\[\]]{1,64}")

HINTS = {
    401: "; see api_key",
    403: "; see api_key",
    404: "; see base_url, which usually ends with /v1, and model",
}
"""What in the configuration may be wrong, by status."""


class ErrorObject(BaseModel):
    """``{"error": {"message", "type", "code", "param"}}``, its inside."""

    type: object = None
    code: object = None
    param: object = None

    def codes(self) -> str:
        """Name what is an identifier, and no sentence."""
        named = {"type": self.type, "code": self.code, "param": self.param}
        return "".join(f", {key} {name}" for key, name in named.items() if name and _IDENTIFIER.fullmatch(str(name)))


class _Body(BaseModel):
    error: ErrorObject | str | None = None


def kind_of_status(status: int) -> FailureKind:
    """Say what an HTTP status other than 200 means for the request."""
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
    """Read an answer whose status is not 200; ``headers`` find their names in any case."""
    said = f"HTTP status {status}"
    error = _error_in(body)
    if isinstance(error, ErrorObject):
        said += error.codes()
    said += HINTS.get(status, "")
    return ProviderError(provider, kind_of_status(status), said, retry_after_s=_wait_s(headers))


def reported(provider: str, error: ErrorObject | str) -> ProviderError:
    """Read an error object in an answer that began well."""
    if isinstance(error, str):
        return ProviderError(provider, FailureKind.BROKEN, "the server reported an error")
    code, name = str(error.code or ""), f"{error.type} {error.code}"
    if code.isdecimal() and len(code) == 3:
        kind = kind_of_status(int(code))
    elif "rate_limit" in name:
        kind = FailureKind.RATE_LIMIT
    elif "server" in name or "overloaded" in name:
        kind = FailureKind.CONNECTIVITY
    else:
        kind = FailureKind.BROKEN
    return ProviderError(provider, kind, f"the server reported an error{error.codes()}")


def reported_in(provider: str, body: bytes) -> ProviderError | None:
    """Read a whole answer; None when it holds no error object."""
    error = _error_in(body)
    return None if error is None else reported(provider, error)


def _error_in(body: bytes) -> ErrorObject | str | None:
    with suppress(ValidationError):  # proxies answer with pages
        return _Body.model_validate_json(body).error
    return None


def _wait_s(headers: Mapping[str, str]) -> float | None:
    """Read ``Retry-After`` (RFC 9110, section 10.2.3), or ``retry-after-ms``, which OpenAI and Azure add."""
    with suppress(KeyError, ValueError):
        return _seconds(float(headers["retry-after-ms"]) / 1000)
    with suppress(KeyError, ValueError):
        return _seconds(float(headers["Retry-After"]))
    with suppress(KeyError, ValueError, TypeError):  # a date, by the clock of the server
        until, now = (parsedate_to_datetime(headers[name]) for name in ("Retry-After", "Date"))
        return _seconds((until - now).total_seconds())
    return None


def _seconds(wait_s: float) -> float | None:
    return wait_s if 0 <= wait_s < math.inf else None
