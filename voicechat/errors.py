"""The exception tree and the status codes. Each error says whose fault it is.

Foreign exceptions (of aiohttp, PyAV, a recogniser) are converted where they enter the
engine. Their texts stay inside: a client receives a status code and one of our own
sentences.
"""

from enum import Enum, IntEnum

IF_MODEL_DAMAGED = (
    "if it was pulled and is damaged, 'voicechat models verify' says so, and 'voicechat models "
    "pull' with its name mends it"
)
"""What to do about a model that cannot be loaded, for messages."""


class Fault(Enum):
    """A failure in a session, independent of protocols: each dialect maps it to its own
    codes.
    """

    ASR_FAILED = "recognition failed"
    LLM_FAILED = "the chat model failed"
    TTS_FAILED = "speech synthesis failed"
    UNSUPPORTED_FORMAT = "an audio format that is not supported"
    UNDECODABLE_AUDIO = "audio that cannot be decoded"
    INVALID_PARAMETER = "a value that is not allowed"
    NOT_FOUND = "something that is not there"
    TOO_LARGE = "more than is allowed"
    TIMEOUT = "nothing came in time"
    NOT_AUTHORISED = "access has ended"
    QUOTA = "a quota is used up"
    AT_CAPACITY = "the server is full, or restarts"
    INTERNAL = "a fault of the server"


class Status(IntEnum):
    """Status codes of the wire contract (``protocol/errors.json``). The first three
    digits are an HTTP status.
    """

    OK = 0
    MALFORMED = 40001
    UNKNOWN_EVENT = 40002
    INVALID_PARAMETER = 40003
    NOT_AUTHORISED = 40101
    NOT_FOUND = 40401
    WRONG_METHOD = 40501
    TIMEOUT = 40801
    NOT_ALLOWED_NOW = 40901
    TOO_LARGE = 41301
    UNSUPPORTED_FORMAT = 41501
    UNDECODABLE_AUDIO = 41502
    QUOTA = 42901
    INTERNAL = 50001
    ASR_FAILED = 50201
    LLM_FAILED = 50202
    TTS_FAILED = 50203
    MEDIA_FAILED = 50204
    AT_CAPACITY = 50301

    @classmethod
    def of(cls, fault: Fault) -> "Status":
        """Return the code of a fault, which has the same name."""
        return cls[fault.name]

    @property
    def fault(self) -> Fault:
        """The fault of the code; INTERNAL for codes that no session's fault has."""
        return Fault.__members__.get(self.name, Fault.INTERNAL)


class VoiceChatError(Exception):
    """Base class of all exceptions that this package raises on purpose."""


class ProtocolError(VoiceChatError):
    """The contract of a connection was broken. Only its two subclasses are raised."""


class LocalProtocolError(ProtocolError):
    """Our own code broke the contract: a bug. The session ends with close code 1011."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the contract: answer it with ``status``, and continue."""

    def __init__(self, reason: Status | Fault, message: str) -> None:
        """``reason``: a code, or what knows no protocol names the fault. ``message`` is
        sent to the client: it names the field, the value and what is allowed.
        """
        super().__init__(message)
        self.status = Status.of(reason) if isinstance(reason, Fault) else reason
        self.message = message

    @property
    def fault(self) -> Fault:
        """The fault of the status."""
        return self.status.fault


class FailureKind(Enum):
    """What went wrong at a provider; decides whether a retry can help."""

    TIMEOUT = "timeout"
    CONNECTIVITY = "connectivity"
    RATE_LIMIT = "rate_limit"
    REJECTED = "rejected"
    BROKEN = "broken"

    @property
    def retryable(self) -> bool:
        """True when the same request may succeed later or elsewhere."""
        return self in (FailureKind.TIMEOUT, FailureKind.CONNECTIVITY, FailureKind.RATE_LIMIT)


CONTEXT_TOO_LONG = "context_length_exceeded"
"""The code of a `RequestRefusedError` for a conversation longer than the model's
context (OpenAI's name).
"""


class ProviderError(VoiceChatError):
    """A recogniser, chat model or synthesiser failed. The only exception that a
    provider may raise.
    """

    def __init__(
        self,
        provider: str,
        kind: FailureKind,
        message: str,
        *,
        retryable: bool | None = None,
        retry_after_s: float | None = None,
        code: str = "",
        of_service: bool = True,
    ) -> None:
        """``message`` goes to the server's log, never to a client; it must contain no
        transcript and no secret.

        ``retryable``: whether the same request may succeed later or elsewhere; by
        default as ``kind`` says. ``retry_after_s``: seconds before which the provider
        must not be asked again, if it says so (``Retry-After`` of an HTTP response).
        ``code``: the service's code of the failure, an identifier such as
        ``insufficient_quota`` and never a sentence; it is sent to clients of the REST
        API. ``of_service``: False when one input caused the failure, which the next one
        will not meet. Circuit breakers then do not count it, so that the service stays
        available to others.
        """
        super().__init__(f"{provider}: {kind.value}: {message}")
        self.provider = provider
        self.kind = kind
        self.retryable = kind.retryable if retryable is None else retryable
        self.retry_after_s = retry_after_s
        self.code = code
        self.of_service = of_service


class RequestRefusedError(ProviderError):
    """The service works but refuses the request, such as a conversation that is too
    long or a value out of range.

    The same request will be refused again, so the client gets the reason, and not that
    the service failed.
    """

    def __init__(self, provider: str, message: str, *, code: str = "") -> None:
        """``message`` and ``code`` as for `ProviderError`; a conversation that is too
        long has `CONTEXT_TOO_LONG`.
        """
        super().__init__(provider, FailureKind.REJECTED, message, code=code)


class BrokenOffError(ProviderError):
    """A provider failed midway, and another one can be asked: for what comes next, or
    to hear it all again.
    """


class ToolError(VoiceChatError):
    """Raised by a tool's function that cannot do what was requested. The message is
    sent to the chat model.
    """


class AdmissionError(VoiceChatError):
    """A session or request was refused before it began: capacity, quota, authorisation,
    unknown service.
    """

    def __init__(self, status: Status, message: str) -> None:
        """``message`` is sent to the client."""
        super().__init__(message)
        self.status = status
        self.message = message


class AtCapacityError(AdmissionError):
    """The server is full. ``retry_after_s``: whole seconds after which a retry may
    succeed.
    """

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(Status.AT_CAPACITY, f"{message}; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class ConfigError(VoiceChatError):
    """The configuration cannot be used. The message names the key's path, the value and
    what is allowed.
    """
