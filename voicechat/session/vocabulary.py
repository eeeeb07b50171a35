"""The nouns that the kernel, the dialects and the providers share: words, transcripts, settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

Message: TypeAlias = Mapping[str, object]
"""One chat message in OpenAI's form: ``{"role": "user", "content": "..."}``; other keys pass through.

An assistant message that called tools has ``"tool_calls": [{"id", "type": "function", "function": {"name",
"arguments"}}]``, ``arguments`` being JSON text and ``content`` possibly empty; behind it stands, for each call,
``{"role": "tool", "tool_call_id": id, "content": text}``. A chat model is never shown a call without its answer.
"""


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


class ToolOutcome(Enum):
    """How a tool call ended."""

    ANSWERED = "answered"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELED = "canceled"
    """The reply was stopped before the answer."""


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """What a tool answered, as the model is told, and how long it took.

    ``tool`` is the configured name, never one that the model made up.
    """

    content: str
    outcome: ToolOutcome
    took_ms: int
    tool: str


@dataclass(frozen=True, slots=True)
class ToolExchange:
    """Whole tool calls that the server itself carried out, and their answers, one for each call in the same order."""

    calls: tuple[ToolCall, ...]
    answers: tuple[ToolAnswer, ...]


HANDS_FREE_LEAD_MS = 1_500
"""How far ahead of playback audio leaves in hands-free mode unless set (contract)."""


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
    volume: float = 50
    """0 to 100; 50: as it comes."""
    speech_rate: float = 1
    """0.5 to 2: how many times as fast as it comes."""
    pitch_rate: float = 1
    """0.5 to 2: how many times the voice's fundamental frequency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSettings:
    """What the chat model is asked besides the conversation itself."""

    model: str = ""
    """A configured chat model; empty means the one the connection was opened with."""
    messages: tuple[Message, ...] = ()
    """Messages that stand before the conversation and that ``conversation.clear`` does not touch."""
    options: Mapping[str, object] = field(default_factory=dict)
    """``temperature``, ``max_tokens``, ``tools`` and the like, already checked, passed through by name."""
    answers_tools: bool = False
    """True: the client answers the calls of its tools, and the reply waits for that. False: a call ends the reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnDetection:
    """Hands-free mode: how the server finds the ends of the user's turns, and what interrupts a reply."""

    threshold: float = 0.5
    """Probability from which a frame counts as speech."""
    prefix_padding_ms: int = 300
    """Audio before the detected start that belongs to the speech."""
    silence_duration_ms: int = 500
    """Silence that ends a turn, as a policy may shorten or lengthen it."""
    create_response: bool = True
    """False: the end of a turn is told, and not answered."""
    interrupt_response: bool = True
    """False: a reply is heard to its end whatever the user says."""
    min_interruption_ms: int = 200
    min_interruption_words: int = 0
    """Words needed to interrupt (a Han character counts as one), backchannels not counted; 0: any speech does."""


DETECTION_BOUNDS: Mapping[str, tuple[float, float]] = {
    "threshold": (0.05, 0.95),
    "prefix_padding_ms": (0, 2_000),
    "silence_duration_ms": (100, 5_000),
    "min_interruption_ms": (64, 5_000),
    "min_interruption_words": (0, 50),
}
"""What the numbers of a ``TurnDetection`` may be, whoever sets them; both ends included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The configuration of one conversation: what ``chat.update`` sets, complete in itself."""

    input: InputSettings = InputSettings()
    chat: ChatSettings = ChatSettings()
    voice: VoiceSettings = VoiceSettings()
    asr_mode: AsrMode = AsrMode.ONLINE
    lead_ms: int | None = None
    """How far ahead of playback frames may leave the server; None: as fast as they are made."""
    turn_detection: TurnDetection | None = None
    """None: the client ends each turn itself."""
    binary_audio: bool = False
    """True: the dialect is to send the reply's audio as binary messages."""
    report_latency: bool = False
    """True: tell, of each reply, where the time went until its first audio left."""

    @property
    def effective_lead_ms(self) -> int | None:
        """``lead_ms``; in hands-free mode frames are paced even if the client did not ask for it."""
        return HANDS_FREE_LEAD_MS if self.lead_ms is None and self.turn_detection is not None else self.lead_ms
