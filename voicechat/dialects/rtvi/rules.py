"""The rules of an RTVI connection: what each message of a client does, and which
messages are sent back.

RTVI reports the bot's pipeline: when the model and the voice begin and end, what they
say, when the user speaks and what was understood. It has no items and no turns.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeAlias

import pybase64
from typing_extensions import override

from voicechat.audio.formats import HIGHEST_RATE_HZ, LOWEST_RATE_HZ
from voicechat.dialects.base import (
    Connection,
    Dialect,
    Frame,
    Reaction,
    Tell,
    wants_announcement,
)
from voicechat.dialects.drawings import Drawing
from voicechat.dialects.rtvi.frames import RawAudio, read_frame, write_audio, write_message
from voicechat.errors import RemoteProtocolError, Status
from voicechat.schema.json_text import read_object, shown, write_json
from voicechat.schema.sources import source_fields
from voicechat.session import commands as cmd
from voicechat.session import notices as nt
from voicechat.session.events import AudioReceived
from voicechat.session.types import (
    InputSettings,
    ReplyOverrides,
    Settings,
    ToolCall,
    ToolExchange,
    ToolOutcome,
    Transcript,
    VoiceSettings,
)

LABEL = "rtvi-ai"
VERSION = "2.2.0"
MAJORS = ("1", "2")
"""The major versions of the protocol that clients may have."""
OUTPUT_RATE_HZ = 24_000
"""The rate that Pipecat's clients play by default."""
SETTINGS = Settings(
    input=InputSettings(silence_allowed=True),
    voice=VoiceSettings(format=f"PCM_{OUTPUT_RATE_HZ}HZ_MONO_16BIT"),
)
MOST_SEEDS = 200
"""The most messages that a test harness may put into the history at once."""
_ROLES = ("system", "user", "assistant")
_Data: TypeAlias = Mapping[str, object]


class RTVI(Dialect):
    """One connection. See the module and ``Dialect``."""

    shows_drawings = True

    def __init__(self, connection: Connection, settings: Settings) -> None:
        """``settings`` are the session's first ones."""
        self.announces_end = wants_announcement(connection.handshake)
        self._connection = connection
        self._settings = settings
        self._binary = False
        """Whether the client sends binary frames; then it gets them, too."""
        self._ready = False
        self._captures_audio = False
        """Whether a test harness asked for the bot's audio."""
        self._speaking = 0
        """The reply that is being heard; 0: none."""
        self._sounds_ms = 0
        """How much of its audio was sent."""
        self._silent_at_ms: int | None = None
        self._writing: set[int] = set()
        """Replies whose text has not ended."""
        self._voicing = 0
        """The reply whose audio has not ended; 0: none."""
        self._calls: dict[int, dict[int, ToolCall]] = {}
        """Functions for the client to carry out, by their reply, while the model still
        writes them.
        """
        self._pending: dict[str, tuple[int, str]] = {}
        """Calls that were sent and are not answered: reply and name, by id."""
        self._contested = False
        """Whether the user speaks while the bot is heard, and has not interrupted it
        yet.
        """

    @override
    def pong(self, now_ms: int) -> Iterable[Reaction]:
        return [cmd.Alive()]

    # --- up ---------------------------------------------------------------------------

    @override
    def receive(self, frame: Frame, now_ms: int) -> Iterable[Reaction]:
        if not frame:
            return [cmd.Alive()]
        message_id: object = None
        try:
            if isinstance(frame, bytes):
                self._binary = True
                content = read_frame(frame)
                if isinstance(content, RawAudio):
                    return [cmd.Alive(), *self._take_audio(content)]
                if content is None:
                    return [cmd.Alive()]
                frame = content
            message = read_object(frame)
            if message.get("label") != LABEL:
                raise _invalid(f"label: {shown(message.get('label'))} is not {LABEL}")
            message_id = message.get("id")
            kind, data = message.get("type"), message.get("data")
            reader = _READERS.get(kind) if isinstance(kind, str) else None
            if reader is None:
                raise _invalid(f"type: {shown(kind)} is not known")
            given = data if isinstance(data, dict) else {}
            reactions = list(reader(self, given, message_id))
        except RemoteProtocolError as error:
            return [cmd.Alive(), self._refuse(message_id, error.message)]
        return [cmd.Alive(), *reactions]

    def _on_ready(self, data: _Data, message_id: object) -> Iterable[Reaction]:
        version = data.get("version")
        if not isinstance(version, str) or version.split(".")[0] not in MAJORS:
            message = (
                f"data.version: {shown(version)} is not a version {' or '.join(MAJORS)} of the "
                f"protocol; this server speaks {VERSION}"
            )
            return [self._tell("error", _error(message, fatal=True)), cmd.Leave(message)]
        begins = [] if self._ready else [cmd.Begin()]
        self._ready = True
        about = {"library": "voicechat"}
        ready = self._tell("bot-ready", {"version": VERSION, "about": about}, message_id)
        return [ready, *begins]

    def _on_audio(self, data: _Data, message_id: object) -> Iterable[Reaction]:
        batch = data.get("base64AudioBatch")
        texts = batch if isinstance(batch, list) else [data.get("base64Audio")]
        rate_hz, channels = data.get("sampleRate", 16_000), data.get("numChannels", 1)
        if not isinstance(rate_hz, int) or not isinstance(channels, int):
            raise _invalid("data.sampleRate, data.numChannels: are not whole numbers")
        reactions: list[Reaction] = []
        for text in texts:
            if not isinstance(text, str):
                raise _invalid("data.base64Audio: must be present and a text")
            try:
                pcm = pybase64.b64decode(text, validate=True)
            except ValueError:
                raise _invalid("data.base64Audio: is not base64") from None
            reactions += self._take_audio(RawAudio(pcm, rate_hz, channels))
        return reactions

    def _take_audio(self, audio: RawAudio) -> list[Reaction]:
        if audio.channels != 1:
            raise _invalid(f"num_channels: {audio.channels} is not 1")
        if not LOWEST_RATE_HZ <= audio.sample_rate_hz <= HIGHEST_RATE_HZ:
            bounds = f"{LOWEST_RATE_HZ} and {HIGHEST_RATE_HZ}"
            raise _invalid(f"sample_rate: {audio.sample_rate_hz} is not between {bounds}")
        reactions: list[Reaction] = []
        if audio.sample_rate_hz != self._settings.input.sample_rate_hz:
            heard = replace(self._settings.input, sample_rate_hz=audio.sample_rate_hz)
            self._settings = replace(self._settings, input=heard)
            reactions.append(cmd.Configure(self._settings))
        return [*reactions, AudioReceived(audio.pcm)] if audio.pcm else reactions

    def _on_text(self, data: _Data, message_id: object) -> Iterable[Reaction]:
        content, options = _text(data, "content"), data.get("options")
        wishes = options if isinstance(options, dict) else {}
        if wishes.get("run_immediately", True) is False:
            return [cmd.AddItem({"role": "user", "content": content})]
        if wishes.get("audio_response", True) is not False:
            return [cmd.Cancel(), cmd.CommitTurn(content)]
        respond = cmd.Respond(ReplyOverrides(spoken=False))
        return [cmd.Cancel(), cmd.AddItem({"role": "user", "content": content}), respond]

    def _on_append(self, data: _Data, message_id: object) -> Iterable[Reaction]:
        role = data.get("role", "user")
        if role not in _ROLES:
            raise _invalid(f"data.role: {shown(role)} is not one of {', '.join(_ROLES)}")
        added = cmd.AddItem({"role": role, "content": _text(data, "content")})
        if data.get("run_immediately"):
            return [cmd.Cancel(), added, cmd.Respond()]
        return [added]

    def _on_dtmf(self, data: _Data, message_id: object) -> Iterable[Reaction]:
        buttons = data.get("buttons", [data.get("button")])  # before 2.1: a single key
        if not isinstance(buttons, list) or not all(isinstance(key, str) for key in buttons):
            raise _invalid("data.buttons: must be an array of keys")
        return [cmd.PressKey(key) for key in buttons]

    def _on_result(self, data: _Data, message_id: object) -> Iterable[Reaction]:
        result = data.get("result")
        content = result if isinstance(result, str) else write_json(result)
        call_id = _text(data, "tool_call_id")
        answer = cmd.AnswerTool(call_id, content, cause=message_id)
        return [answer, *self._stop_call(call_id, result=result, cancelled=False)]

    def _on_client_message(self, data: _Data, message_id: object) -> Iterable[Reaction]:
        """Handle the messages of Pipecat's evals; other client messages are refused."""
        kind, value = data.get("t"), data.get("d")
        given = value if isinstance(value, dict) else {}
        match kind:
            case "eval-connect":
                self._captures_audio = given.get("capture_bot_audio") is True
                silent = given.get("skip_tts") is True
                self._settings = replace(self._settings, spoken=not silent)
                return [cmd.Configure(self._settings)]
            case "eval-configure":
                return []
            case "eval-context":
                return self._seed(given.get("messages"))
            case "eval-cancel":
                return [cmd.Cancel(), cmd.Finish()]
            case _:
                raise _invalid(f"data.t: {shown(kind)} is not a message that this server answers")

    def _seed(self, messages: object) -> list[Reaction]:
        if not isinstance(messages, list) or len(messages) > MOST_SEEDS:
            raise _invalid(f"data.d.messages: is not an array of at most {MOST_SEEDS} messages")
        commands: list[Reaction] = [cmd.ClearHistory()]
        for message in messages:
            if not isinstance(message, dict) or message.get("role") not in _ROLES:
                raise _invalid(f"data.d.messages: {shown(message)} has no role")
            content = _text(message, "content")
            commands.append(cmd.AddItem({"role": message["role"], "content": content}))
        return commands

    # --- down -------------------------------------------------------------------------

    @override
    def notify(self, notice: nt.Notice, now_ms: int) -> Iterable[Reaction]:
        match notice:
            case nt.SpeechNoticed(started):
                return self._on_speech(started=started)
            case nt.TurnCommitted(detected=True):
                return [self._tell("user-stopped-speaking")]
            case nt.Recognised(transcript):
                return [self._tell("user-transcription", self._transcription(transcript, now_ms))]
            case nt.UserSaid(item):
                return [self._tell("user-llm-text", {"text": str(item.message["content"])})]
            case nt.Interrupted():
                return self._on_interrupted()
            case nt.ReplyBegun():
                self._writing.add(notice.reply)
                return [self._kept("bot-llm-started")]
            case nt.ReplyText():
                return [self._tell("bot-llm-text", {"text": notice.text})]
            case nt.ReplySources():
                refs = [source_fields(source) for source in notice.sources]
                return [self._tell("server-message", {"type": "refs", "refs": refs})]
            case nt.ReplyToolCall():
                self._add_call(notice.reply, notice.call)
                return []
            case nt.ReplyTextFinished():
                self._writing.discard(notice.reply)
                return [self._kept("bot-llm-stopped"), *self._begin_calls(notice.reply)]
            case nt.ReplyToolsUsed():
                return self._tools(notice.exchange)
            case nt.SentenceBegun():
                return self._sentence(notice.text)
            case nt.ReplyAudio():
                return self._on_sound(notice, now_ms)
            case nt.ReplyAudioFinished():
                return self._stop_voice(notice.reply)
            case nt.ReplyCut():
                stopped = self._stop_voice(notice.reply)
                return [*stopped, *self._stop_speaking()] if self._speaking else stopped
            case nt.ReplyEnded():
                return self._on_ended(notice)
            case nt.LatencyMeasured():
                stages = notice.breakdown.stages_ms.items()
                ttfb = [{"processor": s.value, "value": ms / 1000} for s, ms in stages]
                return [self._tell("metrics", {"ttfb": ttfb})]
            case nt.Rejected(cause=str() as message_id):
                return [self._refuse(message_id, notice.message)]
            case nt.GoingAway() if self.announces_end:
                left = {"type": "going_away", "left_ms": notice.left_ms}
                return [self._tell("server-message", left)]
            case nt.Failed():
                return [self._tell("error", _error(notice.message, fatal=False))]
            case nt.Ended() if notice.fault is not None:
                return [self._tell("error", _error(notice.message, fatal=True))]
            case _:
                return []

    @override
    def show_drawing(self, drawing: Drawing, now_ms: int) -> Iterable[Reaction]:
        if drawing.failure:
            about = {"prompt": drawing.prompt, "error": drawing.failure}
            return [self._tell("server-message", {"type": "picture-failed", **about})]
        picture = {
            "type": "picture",
            "id": drawing.id,
            "prompt": drawing.prompt,
            "url": drawing.address,
            "content_type": drawing.content_type,
            "width": drawing.width,
            "height": drawing.height,
        }
        return [self._tell("server-message", picture)]

    def _on_speech(self, *, started: bool) -> list[Tell]:
        if not started:
            self._contested = False
            return [self._tell("vad-user-stopped-speaking")]
        told = [self._tell("vad-user-started-speaking")]
        # Pipecat's clients stop the bot's audio at user-started-speaking, so that
        # message waits until a sound has interrupted the bot.
        self._contested = bool(self._speaking)
        return told if self._contested else [*told, self._tell("user-started-speaking")]

    def _on_interrupted(self) -> list[Tell]:
        contested, self._contested = self._contested, False
        started = [self._tell("user-started-speaking")] if contested else []
        return [*started, *self._stop_speaking(), self._tell("bot-interrupted")]

    def _on_ended(self, ended: nt.ReplyEnded) -> list[Tell]:
        told = self._stop_voice(ended.reply)
        self._calls.pop(ended.reply, None)
        left = [call_id for call_id, (reply, _) in self._pending.items() if reply == ended.reply]
        for call_id in left:
            told += self._stop_call(call_id, result=None, cancelled=True)
        if ended.reply in self._writing:
            self._writing.remove(ended.reply)
            told.append(self._tell("bot-llm-stopped"))
        if ended.usage is not None:
            asked, made = ended.usage.prompt_tokens, ended.usage.completion_tokens
            tokens = {"prompt_tokens": asked, "completion_tokens": made}
            counted = {"processor": "llm", **tokens, "total_tokens": asked + made}
            told.append(self._tell("metrics", {"tokens": [counted]}))
        return told

    def _stop_voice(self, reply: int) -> list[Tell]:
        if self._voicing != reply:
            return []
        self._voicing = 0
        return [self._kept("bot-tts-stopped")]

    def _sentence(self, text: str) -> list[Tell]:
        output = {
            "text": text,
            "output_type": "sentence",
            "text_type": "sentence",
            "aggregated_by": "sentence",
            "spoken": True,
            "will_be_spoken": True,
            "spoken_status": "new",
        }
        said = {"text": text}
        return [
            self._tell("bot-output", output),
            self._tell("bot-transcription", said),
            self._tell("bot-tts-text", said),
        ]

    def _on_sound(self, audio: nt.ReplyAudio, now_ms: int) -> list[Tell]:
        told: list[Tell] = []
        if self._speaking != audio.reply:
            stopped = self._stop_speaking()
            self._speaking, self._sounds_ms, self._silent_at_ms = audio.reply, 0, now_ms
            self._voicing = audio.reply
            told = [*stopped, self._kept("bot-tts-started"), self._kept("bot-started-speaking")]
        begins_ms = max(now_ms, self._silent_at_ms or now_ms)
        self._silent_at_ms = begins_ms + audio.end_ms - self._sounds_ms
        self._sounds_ms = audio.end_ms
        if self._binary:
            return [*told, Tell(write_audio(audio.payload, OUTPUT_RATE_HZ))]
        encoded = pybase64.b64encode(audio.payload).decode()
        sound = {"audio": encoded, "sample_rate": OUTPUT_RATE_HZ, "num_channels": 1}
        told.append(self._tell("bot-tts-audio", sound))
        if self._captures_audio:
            captured = {"audio": encoded, "sampleRate": OUTPUT_RATE_HZ}
            told.append(self._tell("eval-bot-audio", captured))
        return told

    def _stop_speaking(self) -> list[Tell]:
        if not self._speaking:
            return []
        self._speaking, self._silent_at_ms = 0, None
        return [self._tell("bot-stopped-speaking")]

    def _add_call(self, reply: int, piece: ToolCall) -> None:
        calls = self._calls.setdefault(reply, {})
        known = calls.get(piece.index)
        if known is not None:
            piece = replace(known, arguments=known.arguments + piece.arguments)
        calls[piece.index] = piece

    def _begin_calls(self, reply: int) -> list[Tell]:
        """Send the calls of a reply: the model has finished them, and the client
        carries them out.
        """
        told: list[Tell] = []
        for call in self._calls.pop(reply, {}).values():
            name, call_id = call.name or "", call.id or ""
            self._pending[call_id] = (reply, name)
            place = {"function_name": name, "tool_call_id": call_id}
            arguments = {"arguments": _arguments(call.arguments)}
            told += [
                self._kept("llm-function-call-started", {"function_name": name}),
                self._kept("llm-function-call-in-progress", {**place, **arguments}),
            ]
        return told

    def _stop_call(self, call_id: str, *, result: object, cancelled: bool) -> list[Tell]:
        if call_id not in self._pending:
            return []
        _, name = self._pending.pop(call_id)
        place = {"function_name": name, "tool_call_id": call_id}
        data = {**place, "cancelled": cancelled, "result": result}
        return [self._kept("llm-function-call-stopped", data)]

    def _tools(self, exchange: ToolExchange) -> list[Tell]:
        """Report the tools that the server carried out, which is after they have
        answered.
        """
        told: list[Tell] = []
        for call, answer in zip(exchange.calls, exchange.answers, strict=True):
            name = {"function_name": call.name, "tool_call_id": call.id}
            cancelled = answer.outcome is ToolOutcome.CANCELED
            told += [
                self._kept("llm-function-call-started", {"function_name": call.name}),
                self._kept(
                    "llm-function-call-in-progress",
                    {**name, "arguments": _arguments(call.arguments)},
                ),
                self._kept(
                    "llm-function-call-stopped",
                    {**name, "cancelled": cancelled, "result": answer.content},
                ),
            ]
        return told

    def _transcription(self, transcript: Transcript, now_ms: int) -> dict[str, object]:
        said_s = self._connection.epoch_s + now_ms / 1000
        return {
            "text": transcript.text,
            "user_id": "",
            "timestamp": datetime.fromtimestamp(said_s, UTC).isoformat(timespec="milliseconds"),
            "final": transcript.final,
        }

    @override
    def deadline_ms(self) -> int | None:
        return self._silent_at_ms

    @override
    def wake(self, now_ms: int) -> Iterable[Reaction]:
        return self._stop_speaking()

    # --- writing ----------------------------------------------------------------------

    def _tell(self, kind: str, data: object = None, message_id: object = None) -> Tell:
        return Tell(self._written(kind, data, message_id))

    def _kept(self, kind: str, data: object = None) -> Tell:
        return Tell(self._written(kind, data, None), kept=True)

    def _written(self, kind: str, data: object, message_id: object) -> Frame:
        text = message_text(kind, data, message_id)
        return write_message(text) if self._binary else text

    def _refuse(self, message_id: object, message: str) -> Tell:
        if isinstance(message_id, str):
            return self._tell("error-response", {"error": message}, message_id)
        return self._tell("error", _error(message, fatal=False))


_Reader: TypeAlias = Callable[[RTVI, _Data, object], Iterable[Reaction]]
_READERS: Mapping[str, _Reader] = {
    "client-ready": RTVI._on_ready,
    "raw-audio": RTVI._on_audio,
    "raw-audio-batch": RTVI._on_audio,
    "send-text": RTVI._on_text,
    "append-to-context": RTVI._on_append,
    "dtmf": RTVI._on_dtmf,
    "llm-function-call-result": RTVI._on_result,
    "client-message": RTVI._on_client_message,
    "disconnect-bot": lambda _, __, ___: [cmd.Cancel(), cmd.Finish()],
}
"""The function that reads each type of message."""


def message_text(kind: str, data: object = None, message_id: object = None) -> str:
    """Return a message as JSON."""
    message: dict[str, object] = {"label": LABEL, "type": kind}
    if message_id is not None:
        message["id"] = message_id
    if data is not None:
        message["data"] = data
    return write_json(message)


def _error(message: str, *, fatal: bool) -> dict[str, object]:
    """Return the data of an error. Pipecat's servers call the text ``error``; its
    clients read ``message``.
    """
    return {"error": message, "message": message, "fatal": fatal}


def error_text(message: str, *, fatal: bool) -> str:
    """Return an error as JSON; ``fatal``: the connection ends with it."""
    return message_text("error", _error(message, fatal=fatal))


def _arguments(text: str) -> object:
    try:
        return read_object(text or "{}")
    except RemoteProtocolError:
        return {}


def _text(data: _Data, name: str) -> str:
    text = data.get(name)
    if not isinstance(text, str) or not text:
        raise _invalid(f"data.{name}: must be present and a text")
    return text


def _invalid(message: str) -> RemoteProtocolError:
    return RemoteProtocolError(Status.INVALID_PARAMETER, message)
