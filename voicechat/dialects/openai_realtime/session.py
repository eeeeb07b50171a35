"""The configuration of a session: what a client writes of it, what is in force, and the
engine's settings that follow from it.

An update holds only what is to change. Objects are merged, everything else is replaced;
null is a value of its own where the protocol knows one.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from voicechat.audio.formats import Container, packet_format
from voicechat.dialects.base import Connection
from voicechat.errors import RemoteProtocolError, Status
from voicechat.schema.chat_tools import BOUNDED_TOOLS, MAX_TOOLS, TOOL_CHOICES, ChatCompletionTool
from voicechat.schema.checked import MAX_KEYS, Check, Items, between, first_failure, one_of
from voicechat.schema.json_text import shown
from voicechat.session.agent import Agent
from voicechat.session.types import (
    DETECTION_BOUNDS,
    ChatSettings,
    InputSettings,
    ReplyOverrides,
    Settings,
    TurnDetection,
    VoiceSettings,
)

PCM_RATE_HZ = 24_000
"""The only rate of ``audio/pcm``."""
G711_RATE_HZ = 8_000
SILENCE_OF_EAGERNESS_MS = {"low": 1_000, "medium": 500, "auto": 500, "high": 350}
"""``semantic_vad``: the silence that ends a turn whose words do not say whether more
comes. After a finished sentence it is 0.6 of it, after an "and" three times as much,
1.3 s more at most.
"""
IDLE_TIMEOUT_MS = (5_000, 30_000)
MAX_METADATA = 16
MAX_OUTPUT_TOKENS = 1_000_000
_INPUT = {
    "audio/pcm": InputSettings(format="pcm", sample_rate_hz=PCM_RATE_HZ, silence_allowed=True),
    "audio/pcmu": InputSettings(format="mulaw", sample_rate_hz=G711_RATE_HZ, silence_allowed=True),
    "audio/pcma": InputSettings(format="alaw", sample_rate_hz=G711_RATE_HZ, silence_allowed=True),
}
_OUTPUT = {
    "audio/pcm": "PCM_24000HZ_MONO_16BIT",
    "audio/pcmu": packet_format(Container.MU_LAW, G711_RATE_HZ, 20).name,
    "audio/pcma": packet_format(Container.A_LAW, G711_RATE_HZ, 20).name,
}
BYTES_PER_MS = {"audio/pcm": PCM_RATE_HZ * 2 / 1000, "audio/pcmu": 8.0, "audio/pcma": 8.0}


class _SessionPart(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _is_of_bounded_size(cls, value: object) -> object:
        if isinstance(value, dict) and len(value) > MAX_KEYS:
            raise ValueError(f"{len(value)} keys are more than {MAX_KEYS}")
        return value


class _Format(_SessionPart):
    type: Annotated[str, one_of(*_INPUT)] = "audio/pcm"
    rate: int | None = None

    @model_validator(mode="after")
    def _has_its_rate(self) -> "_Format":
        own = PCM_RATE_HZ if self.type == "audio/pcm" else G711_RATE_HZ
        if self.rate not in (None, own):
            raise ValueError(f"rate: {self.rate} is not {own}, the only rate of {self.type}")
        return self

    def written(self) -> dict[str, object]:
        rate: dict[str, object] = {"rate": PCM_RATE_HZ} if self.type == "audio/pcm" else {}
        return {"type": self.type, **rate}


class _InputTranscription(_SessionPart):
    model: str | None = None
    language: str | None = None
    prompt: str | None = None


class _NoiseReduction(_SessionPart):
    type: Annotated[str, one_of("near_field", "far_field")] | None = None


class _Detection(_SessionPart):
    type: Annotated[str, one_of("server_vad", "semantic_vad")] = "server_vad"
    threshold: Annotated[float, between(0, 1)] | None = None
    prefix_padding_ms: Annotated[int, between(0, 60_000)] | None = None
    silence_duration_ms: Annotated[int, between(0, 60_000)] | None = None
    idle_timeout_ms: Annotated[int, between(*IDLE_TIMEOUT_MS)] | None = None
    eagerness: Annotated[str, one_of(*SILENCE_OF_EAGERNESS_MS)] | None = None
    create_response: bool | None = None
    interrupt_response: bool | None = None

    def settings(self) -> TurnDetection:
        """Return the engine's; what is out of its bounds becomes the nearest that it
        has.
        """
        semantic = self.type == "semantic_vad"
        silence_ms = (
            SILENCE_OF_EAGERNESS_MS[self.eagerness or "auto"]
            if semantic
            else self.silence_duration_ms
        )
        own = TurnDetection()
        return TurnDetection(
            threshold=_bounded("threshold", None if semantic else self.threshold),
            prefix_padding_ms=int(
                _bounded("prefix_padding_ms", None if semantic else self.prefix_padding_ms)
            ),
            silence_duration_ms=int(_bounded("silence_duration_ms", silence_ms)),
            create_response=_or(self.create_response, own.create_response),
            interrupt_response=_or(self.interrupt_response, own.interrupt_response),
        )

    def written(self) -> dict[str, object]:
        """Write what is in force."""
        own = self.settings()
        answers: dict[str, object] = {
            "create_response": own.create_response,
            "interrupt_response": own.interrupt_response,
        }
        if self.type == "semantic_vad":
            return {"type": self.type, "eagerness": self.eagerness or "auto", **answers}
        return {
            "type": self.type,
            "threshold": own.threshold,
            "prefix_padding_ms": own.prefix_padding_ms,
            "silence_duration_ms": own.silence_duration_ms,
            "idle_timeout_ms": self.idle_timeout_ms,
            **answers,
        }


class _Input(_SessionPart):
    format: _Format = Field(default_factory=_Format)
    noise_reduction: _NoiseReduction | None = None
    transcription: _InputTranscription | None = None
    turn_detection: _Detection | None = None


class _VoiceId(_SessionPart):
    id: str


class _Speaking(_SessionPart):
    format: _Format = Field(default_factory=_Format)
    speed: Annotated[float, between(0.25, 1.5)] = 1.0
    voice: str | _VoiceId | None = None

    @property
    def voice_name(self) -> str:
        return self.voice.id if isinstance(self.voice, _VoiceId) else self.voice or ""

    def settings(
        self, connection: Connection, agent: Agent, before: VoiceSettings
    ) -> VoiceSettings:
        """Return the engine's. It speaks no slower than at half its speed."""
        return replace(
            before,
            voice=connection.pick_voice(self.voice_name or agent.voice),
            format=_OUTPUT[self.format.type],
            speech_rate=max(self.speed, 0.5),
        )


class _Audio(_SessionPart):
    input: _Input = Field(default_factory=_Input)
    output: _Speaking = Field(default_factory=_Speaking)


class _Tool(_SessionPart):
    type: Annotated[str, one_of("function")] = "function"
    name: str
    description: str | None = None
    parameters: dict[str, object] | None = None

    def chat_tool(self) -> dict[str, object]:
        """Return it in the form of chat completions."""
        function = self.model_dump(exclude={"type"}, exclude_none=True)
        return {"type": "function", "function": function}


def _check_tools(tools: list[_Tool]) -> list[_Tool]:
    BOUNDED_TOOLS.check([ChatCompletionTool.model_validate(tool.chat_tool()) for tool in tools])
    return tools


def _check_choice(choice: object) -> object:
    if choice in TOOL_CHOICES:
        return choice
    named = isinstance(choice, dict) and choice.get("type") == "function"
    if named and isinstance(choice.get("name"), str):  # type: ignore[attr-defined]
        return choice
    allowed = ", ".join(TOOL_CHOICES)
    raise ValueError(f'{shown(choice)} is not one of {allowed} or {{"type": "function", "name"}}')


def _check_modalities(modalities: list[str]) -> list[str]:
    if modalities not in (["audio"], ["text"]):
        raise ValueError('must be ["audio"] or ["text"]')
    return modalities


def _check_tokens(tokens: object) -> object:
    if tokens == "inf" or (isinstance(tokens, int) and 1 <= tokens <= MAX_OUTPUT_TOKENS):
        return tokens
    raise ValueError(f'{shown(tokens)} is not "inf" or between 1 and {MAX_OUTPUT_TOKENS}')


def _check_metadata(metadata: dict[str, str]) -> dict[str, str]:
    if len(metadata) > MAX_METADATA:
        raise ValueError(f"{len(metadata)} pairs are more than {MAX_METADATA}")
    return metadata


_Tools = Annotated[list[_Tool], Items(0, MAX_TOOLS, "tools"), Check(_check_tools, {})]
_Choice = Annotated[Any, Check(_check_choice, {})]
_Modalities = Annotated[list[str], Check(_check_modalities, {})]
_Tokens = Annotated[Any, Check(_check_tokens, {})]


class _Reasoning(_SessionPart):
    effort: str | None = None


class _Prompt(_SessionPart):
    id: str
    variables: dict[str, object] | None = None

    @property
    def texts(self) -> dict[str, str]:
        """The variables' values, which may be texts or parts with a text."""
        texts = {}
        for name, value in (self.variables or {}).items():
            text = value.get("text") if isinstance(value, dict) else value
            if isinstance(text, str):
                texts[name] = text
        return texts


class _Answering(_SessionPart):
    """What a session and a single response both may set."""

    instructions: str | None = None
    output_modalities: _Modalities | None = None
    tools: _Tools | None = None
    tool_choice: _Choice | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: _Tokens | None = None
    reasoning: _Reasoning | None = None

    def options(self) -> dict[str, object]:
        """Return the options for the chat model that are set here."""
        options: dict[str, object] = {}
        if self.tools is not None:
            options["tools"] = [tool.chat_tool() for tool in self.tools]
        if self.tool_choice is not None:
            options["tool_choice"] = _chat_choice(self.tool_choice)
        if self.parallel_tool_calls is not None:
            options["parallel_tool_calls"] = self.parallel_tool_calls
        if self.max_output_tokens not in (None, "inf"):
            options["max_tokens"] = self.max_output_tokens
        if self.reasoning is not None and self.reasoning.effort:
            options["reasoning_effort"] = self.reasoning.effort
        return options

    def written(self) -> dict[str, object]:
        """Write what is in force."""
        tools = self.tools or []
        return {
            "instructions": self.instructions or "",
            "output_modalities": self.output_modalities or ["audio"],
            "tools": [tool.model_dump(exclude_none=True) for tool in tools],
            "tool_choice": self.tool_choice or "auto",
            "max_output_tokens": self.max_output_tokens or "inf",
        }


class SessionConfiguration(_Answering):
    """The configuration of a session, complete."""

    type: Annotated[str, one_of("realtime", "transcription")] = "realtime"
    model: str | None = None
    audio: _Audio = Field(default_factory=_Audio)
    include: list[str] | None = None
    truncation: Any = None
    prompt: _Prompt | None = None

    @property
    def transcribes_only(self) -> bool:
        """Whether nobody answers."""
        return self.type == "transcription"

    @property
    def tells_transcripts(self) -> bool:
        """Whether the client wants to read what was understood."""
        return self.transcribes_only or self.audio.input.transcription is not None

    @property
    def input_format(self) -> str:
        """The format of the client's audio, by the protocol's name."""
        return self.audio.input.format.type

    def output_format(self, wishes: "ResponseWishes") -> dict[str, object]:
        """Write the format of a response's audio."""
        audio = None if wishes.audio is None else wishes.audio.output
        if audio is not None and "format" in audio.model_fields_set:
            return audio.format.written()
        return self.audio.output.format.written()

    @property
    def idle_timeout_ms(self) -> int | None:
        """How long the user may be silent after a response before the model speaks
        again; None: as long as they like.
        """
        detection = self.audio.input.turn_detection
        return None if detection is None or self.transcribes_only else detection.idle_timeout_ms

    @property
    def answers_turns(self) -> bool:
        """Whether a turn that was detected is answered by itself."""
        detection = self.audio.input.turn_detection
        return detection is not None and self._detection(detection).create_response

    def _detection(self, wished: _Detection) -> TurnDetection:
        found = wished.settings()
        return replace(found, create_response=False) if self.transcribes_only else found

    def agent(self, connection: Connection) -> Agent:
        """Return who answers: the agent of the ``prompt``, or the connection's. Raises
        ``RemoteProtocolError``.
        """
        if self.prompt is None:
            return connection.agent
        found = connection.find_agent(self.prompt.id, self.prompt.texts)
        if found is None:
            message = f"session.prompt.id: {shown(self.prompt.id)} is no agent of this server"
            raise RemoteProtocolError(Status.INVALID_PARAMETER, message)
        return found

    def settings(self, connection: Connection, before: Settings) -> Settings:
        """Return the engine's settings. The agent's own hold where the client set none.
        Raises what ``agent`` raises.
        """
        agent = self.agent(connection)
        detection = self.audio.input.turn_detection
        options = self.options()
        if not options.get("tools"):
            for name in ("tools", "tool_choice", "parallel_tool_calls"):
                options.pop(name, None)
        return replace(
            before,
            input=_INPUT[self.input_format],
            chat=ChatSettings(
                model=self._chat_model(connection, agent),
                instructions=self.instructions or agent.instructions,
                instructions_by_language=(
                    {} if self.instructions else agent.instructions_by_language
                ),
                options=options,
            ),
            voice=self.audio.output.settings(connection, agent, before.voice),
            spoken=self.output_modalities != ["text"],
            turn_detection=None if detection is None else self._detection(detection),
        )

    def _chat_model(self, connection: Connection, agent: Agent) -> str:
        """Return the chat model that answers; empty: the connection's own. Clients name
        their vendor's model in each update: what is not ours is passed over.
        """
        if self.prompt is not None:
            return agent.llm
        asked = self.model or ""
        if asked == connection.model or asked not in connection.models:
            return ""
        return connection.models.resolve("session.model", asked).name

    def described(self, connection: Connection, session_id: str) -> dict[str, object]:
        """Write the session as it is in force."""
        shared: dict[str, object] = {"id": session_id, "include": self.include}
        given = self.audio.input
        heard = given.transcription
        detection = given.turn_detection
        reading = {
            "format": given.format.written(),
            "transcription": None if heard is None else heard.model_dump(exclude_none=True),
            "noise_reduction": None,
            "turn_detection": None if detection is None else detection.written(),
        }
        if self.transcribes_only:
            kind = {"type": self.type, "object": "realtime.transcription_session"}
            return {**kind, **shared, "audio": {"input": reading}}
        speaking = self.audio.output
        agent = self.agent(connection)
        model = self._chat_model(connection, agent)
        return {
            "type": self.type,
            "object": "realtime.session",
            **shared,
            "model": model or _own_name(connection),
            **self.written(),
            "prompt": None if self.prompt is None else self.prompt.model_dump(exclude_none=True),
            "tracing": None,
            "truncation": "auto" if self.truncation is None else self.truncation,
            "audio": {
                "input": reading,
                "output": {
                    "format": speaking.format.written(),
                    "voice": speaking.settings(connection, agent, VoiceSettings()).voice,
                    "speed": max(speaking.speed, 0.5),
                },
            },
        }


def first_configuration(connection: Connection, *, transcription: bool) -> SessionConfiguration:
    """Return the configuration that a session begins with: the protocol's defaults, and
    the agent's turn detection.
    """
    own = connection.agent.turn_detection
    detection: dict[str, object] | None = {"type": "server_vad"}
    if not connection.hands_free:
        detection = None
    elif own is not None:
        detection = {
            "type": "server_vad",
            "threshold": own.threshold,
            "prefix_padding_ms": own.prefix_padding_ms,
            "silence_duration_ms": own.silence_duration_ms,
            "create_response": own.create_response,
            "interrupt_response": own.interrupt_response,
        }
    kind = "transcription" if transcription else "realtime"
    return SessionConfiguration.model_validate(
        {"type": kind, "audio": {"input": {"turn_detection": detection}}}
    )


def configuration_from(session: object, connection: Connection) -> SessionConfiguration:
    """Return the configuration of a session that is bound to begin with ``session``.
    Raises ``RemoteProtocolError``, as ``updated`` does.
    """
    kind = session.get("type") if isinstance(session, dict) else None
    first = first_configuration(connection, transcription=kind == "transcription")
    return updated(first, session, connection)


def updated(
    before: SessionConfiguration, update: object, connection: Connection
) -> SessionConfiguration:
    """Lay an update over a configuration.

    Raises ``RemoteProtocolError``, whose message begins with the path of the offending
    field.
    """
    if not isinstance(update, dict):
        message = f"session: {shown(update)} is not an object"
        raise RemoteProtocolError(Status.INVALID_PARAMETER, message)
    merged = _merged(before.model_dump(exclude_unset=True), update)
    try:
        after = SessionConfiguration.model_validate(merged)
    except ValidationError as error:
        message = f"session.{first_failure(error)}"
        raise RemoteProtocolError(Status.INVALID_PARAMETER, message) from error
    if after.audio.input.turn_detection is not None and not connection.hands_free:
        message = (
            "session.audio.input.turn_detection: this server detects no voice; set it to "
            "null and end turns with input_audio_buffer.commit"
        )
        raise RemoteProtocolError(Status.INVALID_PARAMETER, message)
    return after


_MERGED = ("audio", "input", "output")
_OFF = ("turn_detection", "transcription", "noise_reduction", "prompt")
"""Fields in which null says that something is off."""


def _merged(before: Mapping[str, object], update: Mapping[str, object]) -> dict[str, object]:
    after = dict(before)
    for name, value in update.items():
        old = before.get(name)
        if name in _MERGED and isinstance(value, dict):
            after[name] = _merged(old if isinstance(old, dict) else {}, value)
        elif value is None and name not in _OFF:
            after.pop(name, None)
        else:
            after[name] = value
    return after


class _ResponseVoice(_SessionPart):
    output: _Speaking | None = None


class ResponseWishes(_Answering):
    """What a client wants of one response; None: as the session says."""

    conversation: Annotated[str, one_of("auto", "none")] = "auto"
    input: list[Any] | None = None
    metadata: Annotated[dict[str, str], Check(_check_metadata, {})] | None = None
    audio: _ResponseVoice | None = None

    @property
    def out_of_band(self) -> bool:
        """Whether it is no part of the conversation."""
        return self.conversation == "none"

    def voice(self, connection: Connection, before: VoiceSettings) -> VoiceSettings | None:
        """Return how it is to be spoken; None: as the session says."""
        wished = None if self.audio is None else self.audio.output
        if wished is None:
            return None
        own = wished.settings(connection, connection.agent, before)
        given = wished.model_fields_set
        return replace(
            before,
            voice=own.voice if "voice" in given else before.voice,
            format=own.format if "format" in given else before.format,
            speech_rate=own.speech_rate if "speed" in given else before.speech_rate,
        )

    def overrides(
        self, connection: Connection, before: Settings, messages: tuple[Any, ...] | None
    ) -> ReplyOverrides:
        """Return the engine's form; ``messages`` is what the model reads, None: the
        conversation.
        """
        options = self.options()
        return ReplyOverrides(
            instructions=self.instructions,
            options=options or None,
            spoken=None if self.output_modalities is None else self.output_modalities == ["audio"],
            voice=self.voice(connection, before.voice),
            input=messages,
            out_of_band=self.out_of_band,
        )


def read_wishes(value: object) -> ResponseWishes:
    """Read the ``response`` of a ``response.create``. Raises ``RemoteProtocolError``,
    as ``updated`` does.
    """
    try:
        return ResponseWishes.model_validate({} if value is None else value)
    except ValidationError as error:
        message = f"response.{first_failure(error)}"
        raise RemoteProtocolError(Status.INVALID_PARAMETER, message) from error


def _chat_choice(choice: object) -> object:
    if isinstance(choice, dict):
        return {"type": "function", "function": {"name": choice["name"]}}
    return choice


def _own_name(connection: Connection) -> str:
    """Return what answers, by our name for it: the client may have asked for its
    vendor's.
    """
    known = connection.model in connection.models
    return connection.model if known else connection.agent.name


def _bounded(name: str, value: float | None) -> float:
    low, high = DETECTION_BOUNDS[name]
    own: float = getattr(TurnDetection(), name)
    return own if value is None else min(max(value, low), high)


def _or(value: bool | None, otherwise: bool) -> bool:
    return otherwise if value is None else value
