"""How events are read and written: their frames, ids and errors."""

from collections.abc import Mapping
from dataclasses import dataclass

import pybase64

from voicechat.errors import RemoteProtocolError, Status
from voicechat.schema.json_text import read_object, shown, write_json

MOST_EVENT_ID_CHARACTERS = 512
"""The longest ``event_id`` that a client may choose; an error repeats it."""
CODES: Mapping[Status, str] = {
    Status.MALFORMED: "invalid_json",
    Status.UNKNOWN_EVENT: "invalid_event_type",
    Status.INVALID_PARAMETER: "invalid_value",
    Status.NOT_FOUND: "not_found",
    Status.NOT_AUTHORISED: "invalid_api_key",
    Status.TOO_LARGE: "too_large",
    Status.UNSUPPORTED_FORMAT: "unsupported_format",
    Status.UNDECODABLE_AUDIO: "invalid_audio",
    Status.NOT_ALLOWED_NOW: "not_allowed_now",
    Status.TIMEOUT: "timeout",
    Status.QUOTA: "rate_limit_exceeded",
    Status.AT_CAPACITY: "server_overloaded",
    Status.ASR_FAILED: "transcription_failed",
    Status.LLM_FAILED: "model_failed",
    Status.TTS_FAILED: "speech_failed",
}
"""The ``code`` of an error, by this server's status."""


class EventError(Exception):
    """A client's request cannot be carried out. The client gets an error, and nothing
    has changed.
    """

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        """``param`` is the path of the field at fault."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


@dataclass(slots=True)
class EventWriter:
    """Writes server events, each with an id of its own."""

    session_id: str
    _made: int = 0

    def new_id(self, kind: str) -> str:
        """Return an id that is unique over all sessions, such as ``item_...``."""
        self._made += 1
        return f"{kind}_{self.session_id}{self._made:04x}"

    def write(self, event_type: str, **fields: object) -> str:
        """Write an event."""
        return write_json({"type": event_type, "event_id": self.new_id("event"), **fields})

    def write_delta(self, head: str, payload: bytes) -> str:
        """Return a ``response.output_audio.delta``. ``head`` holds the fields that name
        its place, as JSON without braces.
        """
        delta = pybase64.b64encode(payload).decode()
        event_id = self.new_id("event")
        return (
            f'{{"type":"response.output_audio.delta","event_id":"{event_id}",{head},'
            f'"delta":"{delta}"}}'
        )

    def write_error(
        self, code: str, message: str, *, cause: str | None = None, param: str | None = None
    ) -> str:
        """Return the error for a client's event; ``cause`` is the ``event_id`` of that
        event.
        """
        return self._error("invalid_request_error", code, message, cause, param)

    def write_failure(self, status: Status, message: str) -> str:
        """Return the error for a failure of the server or of a service."""
        return self._error("server_error", code_of(status), message, None, None)

    def _error(
        self, kind: str, code: str, message: str, cause: str | None, param: str | None
    ) -> str:
        error = {
            "type": kind,
            "code": code,
            "message": message,
            "param": param,
            "event_id": cause,
        }
        return self.write("error", error=error)


def code_of(status: Status) -> str:
    """Return the protocol's code for a status."""
    return CODES.get(status, "server_error")


def error_of(error: RemoteProtocolError) -> EventError:
    """Return the protocol's error for an invalid request. Messages begin with the path
    of the field, which becomes ``param``.
    """
    path, colon, _ = error.message.partition(": ")
    param = path if colon and " " not in path else None
    return EventError(code_of(error.status), error.message, param)


def read_event(text: str) -> Mapping[str, object]:
    """Read one client event. Raises ``RemoteProtocolError``."""
    event = read_object(text)
    event_id = event.get("event_id")
    if event_id is not None and (
        not isinstance(event_id, str) or len(event_id) > MOST_EVENT_ID_CHARACTERS
    ):
        message = (
            f"event_id: {shown(event_id)} is not a text of at most "
            f"{MOST_EVENT_ID_CHARACTERS} characters"
        )
        raise RemoteProtocolError(Status.INVALID_PARAMETER, message)
    return event


def read_audio(event: Mapping[str, object]) -> bytes:
    """Read the audio of ``input_audio_buffer.append``. Raises
    ``RemoteProtocolError``.
    """
    audio = event.get("audio")
    if not isinstance(audio, str):
        raise RemoteProtocolError(Status.INVALID_PARAMETER, "audio: must be present and a text")
    try:
        return pybase64.b64decode(audio, validate=True)
    except ValueError:
        raise RemoteProtocolError(Status.INVALID_PARAMETER, "audio: is not base64") from None


def read_item_id(event: Mapping[str, object]) -> str:
    """Read the id of the item that an event is about. Raises
    ``RemoteProtocolError``.
    """
    item_id = event.get("item_id")
    if not isinstance(item_id, str):
        raise RemoteProtocolError(Status.INVALID_PARAMETER, "item_id: must be present and a text")
    return item_id


def read_number(event: Mapping[str, object], name: str) -> int:
    """Read a whole number that is at least 0. Raises ``RemoteProtocolError``."""
    value = event.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        given = "must be present and" if value is None else f"{shown(value)} is not"
        message = f"{name}: {given} a whole number from 0"
        raise RemoteProtocolError(Status.INVALID_PARAMETER, message)
    return value
