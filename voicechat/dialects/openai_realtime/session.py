"""The configuration of a session: what a client sends, what is in force, and the
engine's settings for it.

An update holds only the fields that change. Objects are merged, everything else is
replaced; null is a value of its own in the fields for which the protocol defines it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field, ValidationError

from voicechat.dialects.base import Connection
from voicechat.dialects.openai_realtime.answering import Answering, ResponseWishes, failure_of
from voicechat.dialects.openai_realtime.audio_settings import (
    INPUT_SETTINGS,
    DetectionWish,
    SessionAudio,
    SessionPart,
)
from voicechat.dialects.openai_realtime.tools import ToolOffer
from voicechat.errors import RemoteProtocolError, Status
from voicechat.schema.checked import one_of
from voicechat.schema.json_text import shown
from voicechat.session.agent import Agent
from voicechat.session.types import ChatSettings, Settings, TurnDetection, VoiceSettings


class _Prompt(SessionPart):
    id: str
    variables: dict[str, object] | None = None

    @property
    def texts(self) -> dict[str, str]:
        """The variables' values, which may be texts or content parts with a text."""
        texts = {}
        for name, value in (self.variables or {}).items():
            text = value.get("text") if isinstance(value, dict) else value
            if isinstance(text, str):
                texts[name] = text
        return texts


class SessionConfiguration(Answering):
    """The whole configuration of a session."""

    type: Annotated[str, one_of("realtime", "transcription")] = "realtime"
    model: str | None = None
    audio: SessionAudio = Field(default_factory=SessionAudio)
    include: list[str] | None = None
    truncation: Any = None
    prompt: _Prompt | None = None

    @property
    def transcribes_only(self) -> bool:
        """Whether the session only transcribes, so that no turn is answered."""
        return self.type == "transcription"

    @property
    def tells_transcripts(self) -> bool:
        """Whether the client asked for transcripts."""
        return self.transcribes_only or self.audio.input.transcription is not None

    @property
    def input_format(self) -> str:
        """The format of the client's audio, under the protocol's name."""
        return self.audio.input.format.type

    def output_format(self, wishes: ResponseWishes) -> dict[str, object]:
        """Return the format of a response's audio, as the protocol writes it."""
        audio = None if wishes.audio is None else wishes.audio.output
        if audio is not None and "format" in audio.model_fields_set:
            return audio.format.written()
        return self.audio.output.format.written()

    @property
    def idle_timeout_ms(self) -> int | None:
        """How long the user may be silent after a response before the model speaks
        again; None: without limit.
        """
        detection = self.audio.input.turn_detection
        return None if detection is None or self.transcribes_only else detection.idle_timeout_ms

    @property
    def answers_turns(self) -> bool:
        """Whether a detected turn is answered without a request."""
        detection = self.audio.input.turn_detection
        return detection is not None and self._detection(detection).create_response

    def _detection(self, wished: DetectionWish) -> TurnDetection:
        found = wished.settings()
        return replace(found, create_response=False) if self.transcribes_only else found

    def agent(self, connection: Connection) -> Agent:
        """Return the agent of the ``prompt``, or the connection's. Raises
        ``RemoteProtocolError`` if the ``prompt`` names no agent.
        """
        if self.prompt is None:
            return connection.agent
        found = connection.find_agent(self.prompt.id, self.prompt.texts)
        if found is None:
            message = f"session.prompt.id: {shown(self.prompt.id)} is no agent of this server"
            raise RemoteProtocolError(Status.INVALID_PARAMETER, message)
        return found

    def settings(self, connection: Connection, before: Settings, offer: ToolOffer) -> Settings:
        """Return the engine's settings. The agent's own values are used where the
        client set none; ``offer`` is what the model is offered of ``tools``. Raises
        what ``agent`` raises.
        """
        agent = self.agent(connection)
        detection = self.audio.input.turn_detection
        return replace(
            before,
            input=INPUT_SETTINGS[self.input_format],
            chat=ChatSettings(
                model=self._chat_model(connection, agent),
                instructions=self.instructions or agent.instructions,
                instructions_by_language=(
                    {} if self.instructions else agent.instructions_by_language
                ),
                options=self.options(offer),
            ),
            voice=self.audio.output.settings(connection, agent, before.voice),
            spoken=self.output_modalities != ["text"],
            turn_detection=None if detection is None else self._detection(detection),
        )

    def _chat_model(self, connection: Connection, agent: Agent) -> str:
        """Return the chat model that answers; empty: the connection's own. Clients send
        their vendor's model name in each update: a name that this server does not have
        is ignored.
        """
        if self.prompt is not None:
            return agent.llm
        asked = self.model or ""
        if asked == connection.model or asked not in connection.models:
            return ""
        return connection.models.resolve("session.model", asked).name

    def described(self, connection: Connection, session_id: str) -> dict[str, object]:
        """Return the session in force, as the protocol writes it."""
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
    """Return the first configuration of a session: the protocol's defaults, with the
    agent's turn detection.
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
    """Return the first configuration of a session whose token is bound to ``session``.
    Raises ``RemoteProtocolError`` as ``updated`` does.
    """
    kind = session.get("type") if isinstance(session, dict) else None
    first = first_configuration(connection, transcription=kind == "transcription")
    return updated(first, session, connection)


def updated(
    before: SessionConfiguration, update: object, connection: Connection
) -> SessionConfiguration:
    """Return the configuration with an update applied.

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
        message = f"session.{failure_of(error)}"
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
"""Fields in which null switches something off."""


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


def _own_name(connection: Connection) -> str:
    """Return this server's own name for the model or agent that answers: the client may
    have asked for a name of its vendor.
    """
    known = connection.model in connection.models
    return connection.model if known else connection.agent.name
