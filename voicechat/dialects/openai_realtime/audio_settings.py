"""How a client describes audio: the formats of both directions, turn detection,
transcription and the voice; and the engine's settings for them.
"""

from dataclasses import replace
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from voicechat.audio.formats import Container, packet_format
from voicechat.dialects.base import Connection
from voicechat.schema.checked import MAX_KEYS, between, one_of
from voicechat.session.agent import Agent
from voicechat.session.types import (
    DETECTION_BOUNDS,
    InputSettings,
    TurnDetection,
    VoiceSettings,
)

PCM_RATE_HZ = 24_000
"""The only rate of ``audio/pcm``."""
G711_RATE_HZ = 8_000
SILENCE_OF_EAGERNESS_MS = {"low": 1_000, "medium": 500, "auto": 500, "high": 350}
"""For ``semantic_vad``, by eagerness: the silence that ends a turn whose words do not
say whether more follows. After a finished sentence the silence is 0.6 of this, after an
"and" three times this, at most 1.3 s more.
"""
IDLE_TIMEOUT_MS = (5_000, 30_000)
INPUT_SETTINGS = {
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


class SessionPart(BaseModel):
    """A part of what a client sets. Types are strict, unknown keys are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _is_of_bounded_size(cls, value: object) -> object:
        if isinstance(value, dict) and len(value) > MAX_KEYS:
            raise ValueError(f"{len(value)} keys are more than {MAX_KEYS}")
        return value


class _AudioFormat(SessionPart):
    type: Annotated[str, one_of(*INPUT_SETTINGS)] = "audio/pcm"
    rate: int | None = None

    @model_validator(mode="after")
    def _has_its_rate(self) -> "_AudioFormat":
        own = PCM_RATE_HZ if self.type == "audio/pcm" else G711_RATE_HZ
        if self.rate not in (None, own):
            raise ValueError(f"rate: {self.rate} is not {own}, the only rate of {self.type}")
        return self

    def written(self) -> dict[str, object]:
        rate: dict[str, object] = {"rate": PCM_RATE_HZ} if self.type == "audio/pcm" else {}
        return {"type": self.type, **rate}


class _InputTranscription(SessionPart):
    model: str | None = None
    language: str | None = None
    prompt: str | None = None


class _NoiseReduction(SessionPart):
    type: Annotated[str, one_of("near_field", "far_field")] | None = None


class DetectionWish(SessionPart):
    """How to find the ends of turns."""

    type: Annotated[str, one_of("server_vad", "semantic_vad")] = "server_vad"
    threshold: Annotated[float, between(0, 1)] | None = None
    prefix_padding_ms: Annotated[int, between(0, 60_000)] | None = None
    silence_duration_ms: Annotated[int, between(0, 60_000)] | None = None
    idle_timeout_ms: Annotated[int, between(*IDLE_TIMEOUT_MS)] | None = None
    eagerness: Annotated[str, one_of(*SILENCE_OF_EAGERNESS_MS)] | None = None
    create_response: bool | None = None
    interrupt_response: bool | None = None

    def settings(self) -> TurnDetection:
        """Return the engine's turn detection. A value out of the engine's bounds
        becomes the nearest allowed one.
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
        """Return the fields in force, as the protocol writes them."""
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


class _InputAudio(SessionPart):
    format: _AudioFormat = Field(default_factory=_AudioFormat)
    noise_reduction: _NoiseReduction | None = None
    transcription: _InputTranscription | None = None
    turn_detection: DetectionWish | None = None


class _VoiceId(SessionPart):
    id: str


class OutputAudio(SessionPart):
    """How to speak a response."""

    format: _AudioFormat = Field(default_factory=_AudioFormat)
    speed: Annotated[float, between(0.25, 1.5)] = 1.0
    voice: str | _VoiceId | None = None

    @property
    def voice_name(self) -> str:
        """The client's name for the voice; empty: it names none."""
        return self.voice.id if isinstance(self.voice, _VoiceId) else self.voice or ""

    def settings(
        self, connection: Connection, agent: Agent, before: VoiceSettings
    ) -> VoiceSettings:
        """Return the engine's voice settings. The engine's slowest speed is 0.5."""
        return replace(
            before,
            voice=connection.pick_voice(self.voice_name or agent.voice),
            format=_OUTPUT[self.format.type],
            speech_rate=max(self.speed, 0.5),
        )


class SessionAudio(SessionPart):
    """The audio of both directions."""

    input: _InputAudio = Field(default_factory=_InputAudio)
    output: OutputAudio = Field(default_factory=OutputAudio)


def _bounded(name: str, value: float | None) -> float:
    low, high = DETECTION_BOUNDS[name]
    own: float = getattr(TurnDetection(), name)
    return own if value is None else min(max(value, low), high)


def _or(value: bool | None, otherwise: bool) -> bool:
    return otherwise if value is None else value
