"""The frames of the conversation socket: how a client's text is read, and how a
session's notices are written.

The messages down that have no ``event_type`` differ by one key each:
``is_sentence_end`` (recognition), ``choices`` (text), ``audioFrame`` (speech).
"""

import re
import struct
from collections.abc import Mapping

import pybase64

from voicechat.dialects.base import Frame
from voicechat.dialects.drawings import Drawing
from voicechat.errors import RemoteProtocolError, Status
from voicechat.schema.json_text import read_object, shown, write_json
from voicechat.schema.sources import source_fields
from voicechat.session.notices import (
    LatencyMeasured,
    ReplyAudio,
    ReplyAudioFinished,
    ReplyBegun,
    ReplyNotice,
    ReplySources,
    ReplyText,
    ReplyTextFinished,
    ReplyToolCall,
)
from voicechat.session.types import ToolCall
from voicechat.text.words import usage_characters

MAX_CONTROL_BYTES = 256 * 1024
"""Largest text frame."""
BINARY_HEADER = struct.Struct(">IIQ")
"""The header of an audio frame with ``downlink: binary``: reply number, sequence within
the reply from 0, and the position of its first sample in the reply, in milliseconds.
"""
_MAX_NUMBER = 2**53 - 1
"""Largest whole number that every JSON implementation keeps exact (RFC 8259, section
6).
"""
PICTURE = "conversation.picture"
MAX_CALL_ID_CHARACTERS = 256
"""The longest id of a tool call that may be answered."""
MAX_TOOL_ANSWER_BYTES = 64 * 1024
"""The longest answer to a tool call: the model reads it in every later turn."""
_NO_REFS: Mapping[int, dict[str, object]] = {}
_REPLY_NUMBER = re.compile(r"[1-9][0-9]{0,15}")


# --- up -------------------------------------------------------------------------------


def read_event(text: str) -> tuple[str, dict[str, object]]:
    """Read one text frame: its ``event_type`` and the whole object. Raises
    ``RemoteProtocolError``.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_CONTROL_BYTES:
        message = f"a text message is limited to {MAX_CONTROL_BYTES} bytes"
        raise RemoteProtocolError(Status.TOO_LARGE, message)
    event = read_object(text)
    name = event.get("event_type")
    if not isinstance(name, str):
        raise RemoteProtocolError(Status.MALFORMED, "event_type: must be present and a text")
    return name, event


def read_role(event: Mapping[str, object]) -> tuple[str, str]:
    """Read ``role`` and ``content`` of ``conversation.message.create``. Raises
    ``RemoteProtocolError``.
    """
    role, content = event.get("role"), event.get("content")
    if not isinstance(role, str) or not isinstance(content, str):
        message = "role, content: must be present and texts"
        raise RemoteProtocolError(Status.MALFORMED, message)
    if role not in ("user", "tool"):
        message = f"role: {shown(role)} is not user or tool"
        raise RemoteProtocolError(Status.INVALID_PARAMETER, message)
    if role == "user" and not content.strip():
        raise RemoteProtocolError(Status.INVALID_PARAMETER, "content: is empty")
    return role, content


def read_call_id(event: Mapping[str, object], content: str) -> str:
    """Read the id of a tool call that ``content`` answers. Raises
    ``RemoteProtocolError``.
    """
    call_id = event.get("tool_call_id")
    if not isinstance(call_id, str):
        raise RemoteProtocolError(Status.MALFORMED, "tool_call_id: must be present and a text")
    if not 1 <= len(call_id) <= MAX_CALL_ID_CHARACTERS:
        message = (
            f"tool_call_id: {shown(call_id)} is not 1 to {MAX_CALL_ID_CHARACTERS} characters long"
        )
        raise RemoteProtocolError(Status.INVALID_PARAMETER, message)
    if len(content.encode()) > MAX_TOOL_ANSWER_BYTES:
        message = f"content: a tool's answer is limited to {MAX_TOOL_ANSWER_BYTES} bytes"
        raise RemoteProtocolError(Status.TOO_LARGE, message)
    return call_id


def read_played(event: Mapping[str, object], session_id: str) -> tuple[int, int]:
    """Read the reply's number and ``played_ms``. Raises ``RemoteProtocolError``.

    ``reply`` is the id that the reply's chunks carry, or its bare number.
    """
    reply = event.get("reply")
    if isinstance(reply, str):
        number = reply.removeprefix(reply_id(session_id, ""))
        if not _REPLY_NUMBER.fullmatch(number):
            message = f"reply: {shown(reply)} is no reply's id"
            raise RemoteProtocolError(Status.INVALID_PARAMETER, message)
        return int(number), _whole_number(event, "played_ms")
    return _whole_number(event, "reply"), _whole_number(event, "played_ms")


def _whole_number(event: Mapping[str, object], field: str) -> int:
    value = event.get(field)
    if not isinstance(value, int) or isinstance(value, bool):
        message = f"{field}: must be present and a whole number"
        raise RemoteProtocolError(Status.MALFORMED, message)
    if not 0 <= value <= _MAX_NUMBER:
        message = f"{field}: {value} is not between 0 and {_MAX_NUMBER}"
        raise RemoteProtocolError(Status.INVALID_PARAMETER, message)
    return value


# --- down -----------------------------------------------------------------------------


def reply_id(session_id: str, reply: int | str) -> str:
    """Return the id of a reply, which is unique over all sessions."""
    return f"chatcmpl-{session_id}-{reply}"


def typed_text(
    event_type: str, status: Status = Status.OK, message: str = "", **more: object
) -> str:
    """Write a message that has an ``event_type``."""
    return write_json({"status": int(status), "message": message, "event_type": event_type, **more})


def latency_text(session_id: str, measured: LatencyMeasured) -> str:
    """Return the stages of a reply's latency as JSON."""
    stages_ms = {
        stage.value: length_ms for stage, length_ms in measured.breakdown.stages_ms.items()
    }
    return typed_text(
        "conversation.chat.latency",
        id=reply_id(session_id, measured.reply),
        total_ms=measured.breakdown.total_ms,
        stages_ms=stages_ms,
    )


def picture_text(drawing: Drawing) -> str:
    """Return a picture that was drawn for the user, or why there is none, as JSON."""
    if drawing.failure:
        failed = Status.MEDIA_FAILED
        return typed_text(PICTURE, failed, drawing.failure, prompt=drawing.prompt)
    return typed_text(
        PICTURE,
        id=drawing.id,
        prompt=drawing.prompt,
        url=drawing.address,
        content_type=drawing.content_type,
        width=drawing.width,
        height=drawing.height,
    )


class ReplyWriter:
    """Writes replies as chat completion chunks and audio frames, one reply after the
    other.
    """

    def __init__(self, session_id: str, epoch_s: float, model: str) -> None:
        """``epoch_s`` is the Unix time of the session's millisecond 0, for the chunks'
        stamps.
        """
        self.model = model
        self.binary_audio = False
        self._session_id = session_id
        self._epoch_s = epoch_s
        self._reply = 0
        self._id = self._id_text = ""
        """The reply's id, and the same as JSON: each piece of audio carries it."""
        self._created = int(epoch_s)
        self._role_told = False
        self._refs: dict[int, dict[str, object]] = {}
        """The sources that the reply has cited, by their index."""
        self._sequence = 0
        self._position_ms = 0

    def write(self, notice: ReplyNotice) -> Frame | None:
        """Return the message of one notice; None where the protocol has none."""
        if notice.reply != self._reply:
            self._reply, self._role_told, self._refs = notice.reply, False, {}
            self._id = reply_id(self._session_id, notice.reply)
            self._id_text = write_json(self._id)
            self._sequence, self._position_ms = 0, 0
        match notice:
            case ReplyAudio():
                return self._audio_bytes(notice) if self.binary_audio else self._audio_text(notice)
            case ReplyText():
                return self._chunk_text({"content": notice.text})
            case ReplyToolCall():
                calls = [_tool_call(notice.call)]
                return self._chunk_text({"content": None, "tool_calls": calls})
            case ReplySources():
                refs = {source.index: source_fields(source) for source in notice.sources}
                self._refs |= refs
                return self._chunk_text({"content": ""}, refs=refs)
            case ReplyTextFinished():
                text = self._chunk_text({"content": ""}, notice.finish_reason, self._refs)
                self._role_told = False  # another answer of the model begins with its role
                return text
            case ReplyAudioFinished():
                return self._audio_end_text(notice)
            case ReplyBegun():
                self._created = int(self._epoch_s + notice.begun_ms / 1000)
                return None
            case _:
                return None

    def _chunk_text(
        self,
        delta: dict[str, object],
        finish_reason: str = "",
        refs: Mapping[int, dict[str, object]] = _NO_REFS,
    ) -> str:
        if not self._role_told:
            delta["role"] = "assistant"
            self._role_told = True
        choice: dict[str, object] = {"delta": delta}
        if finish_reason:
            choice["finish_reason"] = finish_reason
        choice["index"] = 0
        if refs:
            choice["refs"] = list(refs.values())
        return write_json(
            {
                "choices": [choice],
                "created": self._created,
                "id": self._id,
                "model": self.model,
                "object": "chat.completion.chunk",
            }
        )

    def _audio_text(self, audio: ReplyAudio) -> str:
        # Base64 needs no escaping, and this is the one message that is large and
        # frequent, so it is written without a serialiser.
        payload = audio.payload
        frame = f'"{pybase64.b64encode_as_string(payload)}"' if payload else "null"
        return f'{{"status":"accepting","usage":null,"audioFrame":{frame},"id":{self._id_text}}}'

    def _audio_bytes(self, audio: ReplyAudio) -> bytes:
        header = BINARY_HEADER.pack(audio.reply, self._sequence, self._position_ms)
        self._sequence, self._position_ms = self._sequence + 1, audio.end_ms
        return header + audio.payload

    def _audio_end_text(self, end: ReplyAudioFinished) -> str:
        characters = sum(usage_characters(sentence) for sentence in end.spoken)
        return write_json(
            {
                "status": "finish",
                "usage": {"characters": characters},
                "audioFrame": None,
                "id": self._id,
            }
        )


def _tool_call(call: ToolCall) -> dict[str, object]:
    if call.id is None and call.name is None:
        return {"index": call.index, "function": {"arguments": call.arguments}}
    function = {"name": call.name, "arguments": call.arguments}
    return {"index": call.index, "id": call.id, "type": "function", "function": function}
