"""``chat.update``: the document's nested configuration, checked and merged into the
defaults.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, ValidationError, model_validator

from voicechat.audio.formats import (
    HIGHEST_RATE_HZ,
    LOWEST_RATE_HZ,
    parse_input_format,
    parse_output_format,
)
from voicechat.dialects.base import Connection, with_agent
from voicechat.errors import RemoteProtocolError, Status
from voicechat.names import DEFAULT
from voicechat.schema.chat_options import ChatCompletion
from voicechat.schema.chat_tools import BOUNDED_TOOLS, MAX_TOOLS, TOOL_CHOICE, ChatCompletionTool
from voicechat.schema.checked import (
    Check,
    Items,
    RequestModel,
    between,
    first_failure,
    one_of,
    only,
)
from voicechat.schema.document import DOCUMENT_SETTINGS
from voicechat.schema.json_text import read_json, shown
from voicechat.session.types import (
    DETECTION_BOUNDS,
    ChatSettings,
    InputSettings,
    Settings,
    TurnDetection,
    VoiceSettings,
)

_DEFAULTS = DOCUMENT_SETTINGS
_DETECTION = TurnDetection()
_COMPLETION_PATH = "chat_completion_with_voice_output_req.chat_completion_req"
_RECOGNITION_PATH = "create_transcription_task_req"
_ABOUT_TOOLS = {"tool_choice", "parallel_tool_calls"}
_SYNTHESIS_PATH = "chat_completion_with_voice_output_req.speech_synthesis_req.synthesis_param"


def _no_stream(value: object) -> str:
    return f"{shown(value)} is not possible here: replies are always streamed"


class _RecognitionParam(RequestModel):
    sample_rate: Annotated[int, between(LOWEST_RATE_HZ, HIGHEST_RATE_HZ)] = (
        _DEFAULTS.input.sample_rate_hz
    )
    format: str = _DEFAULTS.input.format


class _Transcription(_RecognitionParam):
    heartbeat: bool = False
    speech_recognition_param: _RecognitionParam = _RecognitionParam()

    def named(self, field: str) -> tuple[str, str | int]:
        """Return the path and the value of ``field``: the inner object's if it has one,
        else the outer object's.
        """
        if field in self.speech_recognition_param.model_fields_set:
            return f"{_RECOGNITION_PATH}.speech_recognition_param.{field}", getattr(
                self.speech_recognition_param, field
            )
        return f"{_RECOGNITION_PATH}.{field}", getattr(self, field)


class _SynthesisParam(RequestModel):
    model: str = _DEFAULTS.voice.model
    voice: str = _DEFAULTS.voice.voice
    format: str = _DEFAULTS.voice.format
    volume: Annotated[float, between(0, 100)] = _DEFAULTS.voice.volume
    speech_rate: Annotated[float, between(0.5, 2)] = Field(
        default=_DEFAULTS.voice.speech_rate, validation_alias="speechRate"
    )
    pitch_rate: Annotated[float, between(0.5, 2)] = Field(
        default=_DEFAULTS.voice.pitch_rate, validation_alias="pitchRate"
    )


class _Synthesis(RequestModel):
    stream: Annotated[bool, only(True, _no_stream)] = True
    synthesis_param: _SynthesisParam = _SynthesisParam()


class _Completion(ChatCompletion):
    stream: Annotated[bool, only(True, _no_stream)] = True
    tools: (
        Annotated[list[ChatCompletionTool], Items(0, MAX_TOOLS, "tools"), BOUNDED_TOOLS] | None
    ) = None
    tool_choice: Annotated[object, TOOL_CHOICE] = None
    parallel_tool_calls: bool | None = None

    @model_validator(mode="after")
    def _choices_need_tools(self) -> "_Completion":
        for name in sorted(_ABOUT_TOOLS & self.model_fields_set):
            if not self.tools:
                raise ValueError(f"{name} is only allowed with tools")
        return self

    def given(self) -> dict[str, object]:
        return super().given() | self.model_dump(include=_ABOUT_TOOLS, exclude_unset=True)


class _VoiceOutput(RequestModel):
    chat_completion_req: _Completion
    speech_synthesis_req: _Synthesis


class _Pacing(RequestModel):
    lead_ms: Annotated[int, between(200, 60_000)] | None = None


def _bounded(name: str) -> Check:
    return between(*DETECTION_BOUNDS[name])


class _TurnDetection(RequestModel):
    type: Annotated[str, one_of("server_vad")]
    threshold: Annotated[float, _bounded("threshold")] = _DETECTION.threshold
    prefix_padding_ms: Annotated[int, _bounded("prefix_padding_ms")] = _DETECTION.prefix_padding_ms
    silence_duration_ms: Annotated[int, _bounded("silence_duration_ms")] = (
        _DETECTION.silence_duration_ms
    )
    create_response: bool = _DETECTION.create_response
    interrupt_response: bool = _DETECTION.interrupt_response
    min_interruption_ms: Annotated[int, _bounded("min_interruption_ms")] = (
        _DETECTION.min_interruption_ms
    )
    min_interruption_words: Annotated[int, _bounded("min_interruption_words")] = (
        _DETECTION.min_interruption_words
    )


class _ChatUpdate(RequestModel):
    create_transcription_task_req: _Transcription
    chat_completion_with_voice_output_req: _VoiceOutput
    asr_mode: Annotated[str, one_of("online", "refresh")] = "online"
    pacing: _Pacing = _Pacing()
    turn_detection: _TurnDetection | None = None
    answers_tools: bool = False
    downlink: Annotated[str, one_of("json", "binary")] = "json"
    report_latency: bool = False


@dataclass(frozen=True, slots=True)
class Update:
    """New settings of the session, and what only the dialect uses."""

    settings: Settings
    binary_audio: bool = False
    """True: the reply's audio is sent as binary messages."""
    report_latency: bool = False
    """True: report for each reply where the time went until its first audio was sent.
    """
    note: str = ""
    """A remark in the answer although the update is granted: a name was mapped to
    another.
    """


def read_chat_update(message: object, connection: Connection) -> Update:
    """Read the ``message`` of a ``chat.update``: a JSON string, or an object.

    Every update is complete in itself: unset fields take the defaults, never the
    previous update's values. An unacceptable value raises ``RemoteProtocolError``,
    whose message begins with the path of the offending field.
    """
    try:
        value = read_json(message) if isinstance(message, str) else message
    except RemoteProtocolError as exc:
        raise RemoteProtocolError(exc.status, f"message: {exc.message}") from exc
    if not isinstance(value, dict):
        raise _invalid(f"message: {shown(value)} is not an object")
    try:
        checked = _ChatUpdate.model_validate(value)
    except ValidationError as exc:
        raise _invalid(first_failure(exc)) from exc
    return _settled(checked, connection)


def _invalid(message: str) -> RemoteProtocolError:
    return RemoteProtocolError(Status.INVALID_PARAMETER, message)


def _settled(update: _ChatUpdate, connection: Connection) -> Update:
    """Check what depends on the service: its formats, models and voices."""
    completion = update.chat_completion_with_voice_output_req.chat_completion_req
    synthesis = update.chat_completion_with_voice_output_req.speech_synthesis_req.synthesis_param
    notes = []
    model = "" if _is_own(completion.model, connection) else completion.model
    if model:
        notes += [connection.models.resolve(f"{_COMPLETION_PATH}.model", model).note]
    if update.turn_detection is not None and not connection.hands_free:
        raise _invalid(
            "turn_detection: this server detects no voice; end turns with "
            "input_audio_buffer.complete"
        )
    asked_voice = "voice" in synthesis.model_fields_set
    wished_voice = synthesis.voice if asked_voice else connection.agent.voice or synthesis.voice
    voice = connection.pick_voice(wished_voice)
    settings = Settings(
        input=_input_settings(update.create_transcription_task_req),
        chat=ChatSettings(
            model=model,
            messages=completion.context(),
            options=completion.given(),
            answers_tools=update.answers_tools,
        ),
        voice=VoiceSettings(
            model=synthesis.model,
            voice=voice,
            format=_output_format(synthesis.format),
            volume=synthesis.volume,
            speech_rate=synthesis.speech_rate,
            pitch_rate=synthesis.pitch_rate,
        ),
        half_duplex=update.asr_mode == "refresh",
        lead_ms=update.pacing.lead_ms,
        turn_detection=_detection(update.turn_detection),
    )
    if asked_voice and voice != synthesis.voice:
        asked = shown(synthesis.voice)
        notes += [
            f"{_SYNTHESIS_PATH}.voice: {asked} is not known here; {shown(voice)} speaks instead"
        ]
    return Update(
        with_agent(settings, connection.agent),
        binary_audio=update.downlink == "binary",
        report_latency=update.report_latency,
        note="; ".join(note for note in notes if note),
    )


def _is_own(model: str, connection: Connection) -> bool:
    """Whether ``model`` is what the connection has anyway.

    Clients repeat in every update the name with which they connected, which may be an
    agent's; and ``default`` means the agent's own model if there is an agent.
    """
    named_agent = connection.agent.name != DEFAULT
    return model in ("", connection.model) or (model == DEFAULT and named_agent)


def _detection(wished: _TurnDetection | None) -> TurnDetection | None:
    return None if wished is None else TurnDetection(**wished.model_dump(exclude={"type"}))


def _input_settings(transcription: _Transcription) -> InputSettings:
    path, name = transcription.named("format")
    _, rate_hz = transcription.named("sample_rate")
    try:
        parse_input_format(str(name), int(rate_hz))
    except RemoteProtocolError as exc:
        raise RemoteProtocolError(exc.status, f"{path}: {exc.message}") from exc
    return InputSettings(
        format=str(name), sample_rate_hz=int(rate_hz), silence_allowed=transcription.heartbeat
    )


def _output_format(name: str) -> str:
    try:
        parse_output_format(name)
    except RemoteProtocolError as exc:
        raise RemoteProtocolError(exc.status, f"{_SYNTHESIS_PATH}.format: {exc.message}") from exc
    return name
