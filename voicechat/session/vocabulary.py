"""The nouns that the kernel, the dialects and the providers share: words, transcripts, settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

Message: TypeAlias = Mapping[str, object]
"""One chat message in OpenAI's form: ``{"role": "user", "content": "..."}``; other keys pass through."""


@dataclass(frozen=True, slots=True)
class Word:
    """One recognised word. Times are milliseconds of audio."""

    text: str
    begin_ms: int
    end_ms: int
    punctuation: str = ""
    fixed: bool = False
    """True when later results of the sentence will not change the word."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """What a recogniser understood of one sentence so far.

    ``text`` is cumulative within the sentence. ``end_ms`` is a number exactly when the sentence is final: then the
    next transcript opens a new sentence. Times are milliseconds of audio since the start of the recogniser's input
    (the runtime moves them to the connection's time line).
    """

    text: str
    begin_ms: int
    end_ms: int | None = None
    words: tuple[Word, ...] = ()

    @property
    def final(self) -> bool:
        """Whether the sentence is finished."""
        return self.end_ms is not None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A piece of a tool call, in OpenAI's streaming form: ``id`` and ``name`` come with its first piece."""

    index: int
    id: str | None
    name: str | None
    arguments: str


class AsrMode(Enum):
    """What happens to audio that arrives while a reply is made."""

    ONLINE = "online"
    """It is recognised, and the results are sent when the turn is over."""
    REFRESH = "refresh"
    """It is thrown away: the next turn begins with an empty buffer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSettings:
    """How the client's audio is to be read."""

    format: str = "wav"
    sample_rate_hz: int = 16000
    heartbeat: bool = False
    """True: silence keeps the connection open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceSettings:
    """How the reply is to be spoken."""

    model: str = "cosyvoice-v1"
    voice: str = "longxiaochun"
    format: str = "MP3_22050HZ_MONO_256KBPS"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSettings:
    """What the chat model is asked besides the conversation itself."""

    model: str = ""
    """A configured chat model; empty means the one the connection was opened with."""
    messages: tuple[Message, ...] = ()
    """Messages that stand before the conversation and that ``conversation.clear`` does not touch."""
    options: Mapping[str, object] = field(default_factory=dict)
    """``temperature``, ``max_tokens``, ``tools`` and the like, already checked, passed through by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The configuration of one conversation: what ``chat.update`` sets, complete in itself."""

    input: InputSettings = InputSettings()
    chat: ChatSettings = ChatSettings()
    voice: VoiceSettings = VoiceSettings()
    asr_mode: AsrMode = AsrMode.ONLINE
    lead_ms: int | None = None
    """How far ahead of playback frames may leave the server; None: as fast as they are made."""
