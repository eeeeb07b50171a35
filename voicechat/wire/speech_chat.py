"""The conversation socket of the original document. What the client sends, becomes events; messages become its frames.

Requests and their answers are typed by ``event_type``. The untyped messages down are told apart by a key each:
``is_sentence_end`` (recognition), ``choices`` (text), ``audioFrame`` (speech).
"""

import re
import struct
from collections import deque
from collections.abc import Callable, Mapping

import pybase64

from voicechat.errors import RemoteProtocolError, Status
from voicechat.schema.json_text import read_object, shown, write_json
from voicechat.session.effects import (
    Answered,
    ClientMessage,
    ErrorReported,
    LatencyMeasured,
    Recognised,
    ReplyAudio,
    ReplyAudioFinished,
    ReplyText,
    ReplyTextFinished,
    ReplyToolCall,
    Request,
    SpeechNoticed,
    TurnCompleted,
)
from voicechat.session.events import (
    AudioReceived,
    CancelRequested,
    ClearRequested,
    CompleteRequested,
    Decoded,
    Event,
    ForgetRequested,
    IgnorableReceived,
    MalformedReceived,
    MessageCreated,
    PingReceived,
    PlaybackReported,
    Refusal,
    ToolAnswered,
)
from voicechat.session.vocabulary import ToolCall
from voicechat.wire.chat_update import read_chat_update
from voicechat.wire.dialect import Dialect, Frame, Greeting
from voicechat.wire.recognition import result_text

MAX_CONTROL_BYTES = 256 * 1024
"""Largest text frame."""
BINARY_HEADER = struct.Struct(">IIQ")
"""Of an audio frame with ``downlink: binary``: reply number, sequence within the reply from 0, and the position in the
reply, in milliseconds, of its first sample."""
_MAX_NUMBER = 2**53 - 1
"""Largest whole number that every JSON implementation keeps exact (RFC 8259, section 6)."""
MAX_CALL_ID_CHARACTERS = 256
"""Longest id of a tool call that may be answered."""
MAX_TOOL_ANSWER_BYTES = 64 * 1024
"""Of one answer: the model reads it in every later turn."""
_REPLY_NUMBER = re.compile(r"[1-9][0-9]{0,15}")


def open_dialect(greeting: Greeting, *, update_reply: str = "chat.updated") -> Dialect:
    """Open the dialect for one connection.

    ``update_reply`` is the event type that answers ``chat.update``: the document's example says ``chat.updated``,
    its table ``chat.update``.
    """
    return _SpeechChat(greeting, update_reply)


class _SpeechChat:
    bare_audio = True
    """See ``Dialect.bare_audio``."""

    def __init__(self, greeting: Greeting, update_reply: str) -> None:
        self._greeting = greeting
        self._names = {request: request.value for request in Request} | {Request.UPDATE: update_reply}
        self._model = greeting.model
        self._binary_audio = False
        self._sequence = 0
        self._position_ms = 0
        self._audio_of = 0
        self._asked: deque[tuple[str, bool]] = deque()
        """Of each ``chat.update`` that awaits its answer, the model and whether audio is to be binary; the kernel
        answers each one, in order."""

    # --- up ---------------------------------------------------------------------------------------------------

    def decode(self, frame: Frame) -> list[Decoded]:
        if isinstance(frame, bytes):
            return [AudioReceived(frame) if frame else IgnorableReceived()]
        try:
            return [self._read_event(frame)]
        except RemoteProtocolError as exc:
            return [MalformedReceived(exc.status, exc.message)]

    def _read_event(self, text: str) -> Event:
        if len(text.encode("utf-8", "surrogatepass")) > MAX_CONTROL_BYTES:
            raise RemoteProtocolError(Status.TOO_LARGE, f"a text message is limited to {MAX_CONTROL_BYTES} bytes")
        event = read_object(text)
        name = event.get("event_type")
        if not isinstance(name, str):
            raise RemoteProtocolError(Status.MALFORMED, "event_type: must be present and a text")
        reader = _READERS.get(name)
        if reader is None:
            raise RemoteProtocolError(Status.UNKNOWN_EVENT, f"event_type: {shown(name)} is not known")
        return reader(self, event)

    def _read_update(self, event: dict[str, object]) -> Event:
        update = read_chat_update(event.get("message"), self._greeting)
        if isinstance(update.settings, Refusal):
            self._asked.append((self._model, self._binary_audio))
        else:
            model = update.settings.chat.model or self._greeting.model
            self._asked.append((model, update.settings.binary_audio))
        return update

    def _read_played(self, event: dict[str, object]) -> Event:
        return PlaybackReported(self._reply_number(event.get("reply")), _whole_number(event, "played_ms"))

    def _reply_number(self, reply: object) -> int:
        """Read the id that the reply's chunks carry, or the reply's bare number."""
        if isinstance(reply, str):
            number = reply.removeprefix(self._reply_id(""))
            if not _REPLY_NUMBER.fullmatch(number):
                raise RemoteProtocolError(Status.INVALID_PARAMETER, f"reply: {shown(reply)} is no reply's id")
            return int(number)
        return _whole_number({"reply": reply}, "reply")

    # --- down -------------------------------------------------------------------------------------------------

    def encode(self, message: ClientMessage) -> list[Frame]:
        match message:
            case ReplyAudio():
                return [self._audio_bytes(message) if self._binary_audio else self._audio_text(message)]
            case ReplyText():
                return [self._chunk_text(message, {"content": message.text})]
            case Recognised():
                return [result_text(message.transcript)]
            case ReplyTextFinished():
                return [self._chunk_text(message, {"content": ""}, message.finish_reason)]
            case ReplyToolCall():
                return [self._chunk_text(message, {"content": None, "tool_calls": [_tool_call(message.call)]})]
            case ReplyAudioFinished():
                return [self._audio_end_text(message)]
            case Answered():
                return [self._answer_text(message)]
            case TurnCompleted():
                return [_typed_text("conversation.chat.completed", Status.OK, "")]
            case SpeechNoticed(started=True):
                return [_typed_text("input_audio_buffer.speech_started", Status.OK, "", audio_start_ms=message.at_ms)]
            case SpeechNoticed():
                return [_typed_text("input_audio_buffer.speech_stopped", Status.OK, "", audio_end_ms=message.at_ms)]
            case LatencyMeasured():
                return [self._latency_text(message)]
            case ErrorReported():
                return [_typed_text("error", message.status, message.message)]

    def _answer_text(self, answer: Answered) -> str:
        if answer.request is Request.UPDATE and self._asked:
            asked = self._asked.popleft()
            if answer.status is Status.OK:
                self._model, self._binary_audio = asked
        more = {"reason": answer.reason} if answer.reason else {}
        opened = answer.request is Request.OPEN and answer.status is Status.OK
        message = self._greeting.note if opened else answer.message
        return _typed_text(self._names[answer.request], answer.status, message, **more)

    def _chunk_text(
        self, message: ReplyText | ReplyToolCall | ReplyTextFinished, delta: dict[str, object], finish_reason: str = ""
    ) -> str:
        if message.first:
            delta["role"] = "assistant"
        choice: dict[str, object] = {"delta": delta}
        if finish_reason:
            choice["finish_reason"] = finish_reason
        choice["index"] = 0
        return write_json(
            {
                "choices": [choice],
                "created": int(self._greeting.epoch_s + message.begun_ms / 1000),
                "id": self._reply_id(message.reply),
                "model": self._model,
                "object": "chat.completion.chunk",
            }
        )

    def _audio_text(self, audio: ReplyAudio) -> str:
        # Base64 needs no escaping, and this is the one message that is large and frequent: no serialiser runs over it.
        frame = f'"{pybase64.b64encode_as_string(audio.payload)}"' if audio.payload else "null"
        reply_id = write_json(self._reply_id(audio.reply))
        return f'{{"status":"accepting","usage":null,"audioFrame":{frame},"id":{reply_id}}}'

    def _audio_bytes(self, audio: ReplyAudio) -> bytes:
        if audio.reply != self._audio_of:
            self._audio_of, self._sequence, self._position_ms = audio.reply, 0, 0
        header = BINARY_HEADER.pack(audio.reply, self._sequence, self._position_ms)
        self._sequence, self._position_ms = self._sequence + 1, audio.end_ms
        return header + audio.payload

    def _latency_text(self, measured: LatencyMeasured) -> str:
        stages_ms = {stage.value: length_ms for stage, length_ms in measured.waterfall.stages_ms.items()}
        return _typed_text(
            "conversation.chat.latency",
            Status.OK,
            "",
            id=self._reply_id(measured.reply),
            total_ms=measured.waterfall.total_ms,
            stages_ms=stages_ms,
        )

    def _audio_end_text(self, end: ReplyAudioFinished) -> str:
        return write_json(
            {
                "status": "finish",
                "usage": {"characters": end.characters},
                "audioFrame": None,
                "id": self._reply_id(end.reply),
            }
        )

    def _reply_id(self, reply: int | str) -> str:
        return f"chatcmpl-{self._greeting.session_id}-{reply}"


_READERS: Mapping[str, Callable[[_SpeechChat, dict[str, object]], Event]] = {
    "chat.update": _SpeechChat._read_update,
    "input_audio_buffer.complete": lambda _, __: CompleteRequested(),
    "input_audio_buffer.clear": lambda _, __: ClearRequested(),
    "conversation.clear": lambda _, __: ForgetRequested(),
    "conversation.chat.cancel": lambda _, __: CancelRequested(),
    "conversation.audio.played": _SpeechChat._read_played,
    "conversation.message.create": lambda _, event: _read_message(event),
    "ping": lambda _, __: PingReceived(),
}
"""What reads an event, by its type. Not kept by each dialect: it would refer to itself."""


def _typed_text(event_type: str, status: Status, message: str, **more: object) -> str:
    return write_json({"status": int(status), "message": message, "event_type": event_type, **more})


def _tool_call(call: ToolCall) -> dict[str, object]:
    if call.id is None and call.name is None:
        return {"index": call.index, "function": {"arguments": call.arguments}}
    function = {"name": call.name, "arguments": call.arguments}
    return {"index": call.index, "id": call.id, "type": "function", "function": function}


def _read_message(event: dict[str, object]) -> Event:
    role, content = event.get("role"), event.get("content")
    if not isinstance(role, str) or not isinstance(content, str):
        raise RemoteProtocolError(Status.MALFORMED, "role, content: must be present and texts")
    if role == "tool":
        return _read_tool_answer(event, content)
    if role != "user":
        raise RemoteProtocolError(Status.INVALID_PARAMETER, f"role: {shown(role)} is not user or tool")
    if not content.strip():
        raise RemoteProtocolError(Status.INVALID_PARAMETER, "content: is empty")
    return MessageCreated(content)


def _read_tool_answer(event: Mapping[str, object], content: str) -> Event:
    call_id = event.get("tool_call_id")
    if not isinstance(call_id, str):
        raise RemoteProtocolError(Status.MALFORMED, "tool_call_id: must be present and a text")
    if not 1 <= len(call_id) <= MAX_CALL_ID_CHARACTERS:
        message = f"tool_call_id: {shown(call_id)} is not 1 to {MAX_CALL_ID_CHARACTERS} characters long"
        raise RemoteProtocolError(Status.INVALID_PARAMETER, message)
    if len(content.encode()) > MAX_TOOL_ANSWER_BYTES:
        raise RemoteProtocolError(
            Status.TOO_LARGE, f"content: a tool's answer is limited to {MAX_TOOL_ANSWER_BYTES} bytes"
        )
    return ToolAnswered(call_id, content)


def _whole_number(event: Mapping[str, object], field: str) -> int:
    value = event.get(field)
    if not isinstance(value, int) or isinstance(value, bool):
        raise RemoteProtocolError(Status.MALFORMED, f"{field}: must be present and a whole number")
    if not 0 <= value <= _MAX_NUMBER:
        raise RemoteProtocolError(Status.INVALID_PARAMETER, f"{field}: {value} is not between 0 and {_MAX_NUMBER}")
    return value
