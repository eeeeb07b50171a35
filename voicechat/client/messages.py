"""The messages of a server as values, and the parser of its frames."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson
import pybase64

from voicechat.client.connection import ConnectionLostError
from voicechat.errors import Status

_BINARY_HEADER = struct.Struct(">IIQ")
"""Header of a binary audio message: reply number, sequence number, position in
milliseconds (contract).
"""


@dataclass(frozen=True, slots=True)
class _StatusMessage:
    status: int
    message: str
    reason: str = ""
    """Why the server acted by itself: ``turn_detected`` in hands-free mode. Empty if
    the client requested it.
    """

    @property
    def granted(self) -> bool:
        """Whether the request was granted. If not, ``message`` gives the reason."""
        return self.status == Status.OK


class CreatedMessage(_StatusMessage):
    """The conversation is open."""

    __slots__ = ()


class UpdatedMessage(_StatusMessage):
    """The answer to ``update``. ``message`` may be a remark even if it was granted."""

    __slots__ = ()


class CompletedMessage(_StatusMessage):
    """The answer to ``complete``: the user's turn has ended. In hands-free mode the
    server sends it by itself.
    """

    __slots__ = ()


class ClearedMessage(_StatusMessage):
    """The answer to ``clear``."""

    __slots__ = ()


class ForgottenMessage(_StatusMessage):
    """The answer to ``forget``."""

    __slots__ = ()


class CanceledMessage(_StatusMessage):
    """The reply was cancelled, by ``cancel`` or because the user interrupted it.

    No message of the reply follows. Clear the playback buffer.
    """

    __slots__ = ()


class PongMessage(_StatusMessage):
    """The answer to a ping."""

    __slots__ = ()


class TurnCompletedMessage(_StatusMessage):
    """The turn has ended, normally or not. The server listens again."""

    __slots__ = ()


class ErrorMessage(_StatusMessage):
    """An error that does not answer a particular request."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class SpeechStartedMessage:
    """Hands-free: the user began to speak at ``audio_start_ms`` of the sent audio."""

    audio_start_ms: int


@dataclass(frozen=True, slots=True)
class SpeechStoppedMessage:
    """Hands-free: the user stopped speaking at ``audio_end_ms`` of the sent audio."""

    audio_end_ms: int


@dataclass(frozen=True, slots=True)
class TranscriptMessage:
    """A recognition result. ``text`` replaces the previous text of the sentence.

    ``end_ms`` is None while the sentence is not final.
    """

    text: str
    begin_ms: int
    end_ms: int | None

    @property
    def final(self) -> bool:
        """Whether the text of the sentence is final."""
        return self.end_ms is not None


@dataclass(frozen=True, slots=True)
class ReplyTextMessage:
    """A delta of the reply's text. The last one has a ``finish_reason`` and often no
    content.
    """

    reply_id: str
    content: str
    finish_reason: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCallPiece:
    """A delta of one tool call. The first has the id and the name; all ``arguments``
    concatenated are JSON.
    """

    index: int
    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolCallPiecesMessage:
    """Deltas of tool calls. ``ClientConversation`` assembles them and yields one
    ``ToolCallMessage`` for each call.
    """

    reply_id: str
    pieces: tuple[ToolCallPiece, ...]


@dataclass(frozen=True, slots=True)
class ToolCallMessage:
    """The model calls a tool. Run it, and pass ``id`` and the result to
    ``ClientConversation.answer_tool``.

    ``arguments`` is JSON as the model wrote it: validate it like any untrusted input.
    """

    reply_id: str
    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ReplyAudioMessage:
    """A piece of the reply's audio in the requested format. Concatenated, the pieces
    form one stream.

    ``reply_id`` is the id of the reply's text. In a binary message it is the reply's
    number; the server accepts either in ``report_played``. Only binary messages have a
    ``position_ms``, the offset of the piece in the reply.
    """

    reply_id: str
    payload: bytes
    position_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ReplyFinishedMessage:
    """The last message of a reply that was not cancelled and did not fail."""

    reply_id: str
    characters: int


@dataclass(frozen=True, slots=True)
class LatencyMessage:
    """The latency breakdown from the end of the user's speech to the first audio sent,
    if ``update`` requested it.

    The values of ``stages_ms`` add up to ``total_ms``: decision, transcript,
    first_token, first_sentence, first_audio, first_sent.
    """

    reply_id: str
    total_ms: int
    stages_ms: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PictureMessage:
    """A picture that the model had drawn is finished, or could not be made. It may come
    after the end of its reply.
    """

    prompt: str
    """What the model asked for."""
    id: str = ""
    url: str = ""
    """Where it is fetched, without a key; empty: it could not be made."""
    content_type: str = ""
    width: int = 0
    height: int = 0
    """In pixels."""
    error: str = ""
    """Why it could not be made."""


@dataclass(frozen=True, slots=True)
class GoingAwayMessage:
    """The server stops. It closes the connection in ``left_ms``, or when the turn is
    over that is in progress then. Only with ``connect(announce_end=True)``.
    """

    left_ms: int


StatusMessage: TypeAlias = (
    CreatedMessage
    | UpdatedMessage
    | CompletedMessage
    | ClearedMessage
    | ForgottenMessage
    | CanceledMessage
    | PongMessage
    | TurnCompletedMessage
    | ErrorMessage
)
ServerMessage: TypeAlias = (
    StatusMessage
    | SpeechStartedMessage
    | SpeechStoppedMessage
    | TranscriptMessage
    | ReplyTextMessage
    | ToolCallPiecesMessage
    | ToolCallMessage
    | ReplyAudioMessage
    | ReplyFinishedMessage
    | LatencyMessage
    | PictureMessage
    | GoingAwayMessage
)

_ANSWERS: Mapping[str, type[StatusMessage]] = {
    "chat.created": CreatedMessage,
    "chat.updated": UpdatedMessage,
    "chat.update": UpdatedMessage,
    "input_audio_buffer.completed": CompletedMessage,
    "input_audio_buffer.cleared": ClearedMessage,
    "conversation.cleared": ForgottenMessage,
    "conversation.chat.canceled": CanceledMessage,
    "conversation.chat.completed": TurnCompletedMessage,
    "pong": PongMessage,
    "error": ErrorMessage,
}


def parse_message(frame: str | bytes) -> ServerMessage | None:
    """Parse one frame of the server. Returns None for a message of an unknown type.

    Raises ConnectionLostError(1002) for a malformed frame.
    """
    if isinstance(frame, bytes):
        return _parse_audio(frame)
    try:
        message = orjson.loads(frame)
        return _parse(message) if isinstance(message, dict) else None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ConnectionLostError(
            1002, f"the server sent what this client cannot read: {type(error).__name__}"
        ) from error


def _parse_audio(frame: bytes) -> ReplyAudioMessage | None:
    if len(frame) < _BINARY_HEADER.size:
        return None
    reply, _, position_ms = _BINARY_HEADER.unpack_from(frame)
    return ReplyAudioMessage(str(reply), frame[_BINARY_HEADER.size :], position_ms)


def _parse(message: Mapping[str, Any]) -> ServerMessage | None:
    if "event_type" in message:
        return _parse_event(message)
    if "choices" in message:
        return _parse_chunk(str(message.get("id", "")), message["choices"][0])
    if "audioFrame" in message:
        reply_id = str(message.get("id", ""))
        if message["audioFrame"] is not None:
            return ReplyAudioMessage(
                reply_id, pybase64.b64decode(message["audioFrame"], validate=True)
            )
        return (
            ReplyFinishedMessage(reply_id, int(message["usage"]["characters"]))
            if message.get("usage")
            else None
        )
    if "is_sentence_end" in message:
        end = message["end_time"] if message["is_sentence_end"] else None
        return TranscriptMessage(
            message["text"], int(message["begin_time"]), None if end is None else int(end)
        )
    return None


def _parse_chunk(
    reply_id: str, choice: Mapping[str, Any]
) -> ReplyTextMessage | ToolCallPiecesMessage:
    delta = choice["delta"]
    if delta.get("tool_calls"):
        return ToolCallPiecesMessage(
            reply_id, tuple(_parse_call(piece) for piece in delta["tool_calls"])
        )
    return ReplyTextMessage(reply_id, delta.get("content") or "", choice.get("finish_reason"))


def _parse_call(piece: Mapping[str, Any]) -> ToolCallPiece:
    function = piece["function"]
    arguments = str(function.get("arguments") or "")
    return ToolCallPiece(
        int(piece["index"]), str(piece.get("id") or ""), str(function.get("name") or ""), arguments
    )


def _parse_event(message: Mapping[str, Any]) -> ServerMessage | None:
    match message["event_type"]:
        case "input_audio_buffer.speech_started":
            return SpeechStartedMessage(int(message["audio_start_ms"]))
        case "input_audio_buffer.speech_stopped":
            return SpeechStoppedMessage(int(message["audio_end_ms"]))
        case "conversation.chat.latency":
            stages_ms = {
                str(stage): int(length_ms) for stage, length_ms in message["stages_ms"].items()
            }
            return LatencyMessage(str(message["id"]), int(message["total_ms"]), stages_ms)
        case "conversation.picture":
            return _parse_picture(message)
        case "session.going_away":
            return GoingAwayMessage(int(message["left_ms"]))
        case event_type:
            kind = _ANSWERS.get(event_type)
            reason = str(message.get("reason", ""))
            return kind(int(message["status"]), str(message["message"]), reason) if kind else None


def _parse_picture(message: Mapping[str, Any]) -> PictureMessage:
    prompt = str(message["prompt"])
    if int(message["status"]) != Status.OK:
        return PictureMessage(prompt, error=str(message["message"]))
    return PictureMessage(
        prompt,
        str(message["id"]),
        str(message["url"]),
        str(message["content_type"]),
        int(message["width"]),
        int(message["height"]),
    )
