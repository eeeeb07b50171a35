"""The nouns that the kernel, the dialects and the providers share: words, transcripts,
settings.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from voicechat.session.filler import AFTER_MS, Filler

Message: TypeAlias = Mapping[str, object]
"""One chat message in the form of chat completions: ``{"role": "user", "content":
"..."}``; other keys pass through.

An assistant message that called tools has ``"tool_calls": [{"id", "type": "function",
"function": {"name", "arguments"}}]``, ``arguments`` being JSON text and ``content``
possibly empty; behind it stands, for each call, ``{"role": "tool", "tool_call_id": id,
"content": text}``. A chat model is never shown a call without its answer.
"""


@dataclass(frozen=True, slots=True)
class Item:
    """One message of a conversation's history."""

    id: str
    message: Message
    reply: int = 0
    """The number of the reply that it is part of; 0: of none."""


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

    ``text`` is cumulative within the sentence. ``end_ms`` is a number exactly when the
    sentence is final: then the next transcript opens a new sentence. Times are
    milliseconds of audio since the start of the recogniser's input (the runtime moves
    them to the connection's time line).
    """

    text: str
    begin_ms: int
    end_ms: int | None = None
    words: tuple[Word, ...] = ()
    language: str = ""
    """The language that the recogniser detected, as ISO 639-1 (``zh``, ``en``); "" if
    it does not say.
    """

    @property
    def final(self) -> bool:
        """Whether the sentence is finished."""
        return self.end_ms is not None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A piece of a tool call, as chat completions stream it: ``id`` and ``name`` come
    with its first piece.
    """

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
    """Whole tool calls that the server itself carried out, and their answers, one for
    each call in the same order.
    """

    calls: tuple[ToolCall, ...]
    answers: tuple[ToolAnswer, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a chat model used, as it reported it."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        """Add what another request of the same reply used."""
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )


PIECE_MS = 100
"""How long the pieces of a reply's audio are unless set."""
HANDS_FREE_LEAD_MS = 1_500
"""How far ahead of playback audio leaves in hands-free mode unless set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSettings:
    """How the client's audio is to be read."""

    format: str = "pcm"
    """A name that ``parse_input_format`` accepts."""
    sample_rate_hz: int = 16000
    silence_allowed: bool = False
    """True: a user who stays silent keeps the connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceSettings:
    """How the reply is to be spoken."""

    model: str = ""
    """A synthesiser may have several; empty: its default, as with ``voice``."""
    voice: str = ""
    format: str = "PCM_16000HZ_MONO_16BIT"
    """A name that ``parse_voice_format`` accepts."""
    piece_ms: int = PIECE_MS
    """Audio is given out in pieces of this length, but for a shorter first one: what an
    interruption can be late by, and what pacing can measure. 20 at least.
    """
    volume: float = 50
    """0 to 100; 50: as it comes."""
    level_dbov: float | None = None
    """The active speech level (ITU-T P.56) that every voice is brought to, before
    ``volume``; None: as it comes.
    """
    speech_rate: float = 1
    """0.5 to 2: how many times as fast as it comes."""
    marks: Set[str] = frozenset()
    """Words, in small letters, that are not spoken where they stand alone in square
    brackets, ``[]`` or ``【】``: the client is to see them.
    """
    pitch_rate: float = 1
    """0.5 to 2: how many times the voice's fundamental frequency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSettings:
    """What the chat model is asked besides the conversation itself."""

    model: str = ""
    """A configured chat model; empty means the one the connection was opened with."""
    messages: tuple[Message, ...] = ()
    """Messages that stand before the conversation, whatever becomes of the history."""
    instructions: str = ""
    """The system message, before all others; empty: none."""
    instructions_by_language: Mapping[str, str] = field(default_factory=dict)
    """In its place where the user's last words are in that language, which is one of
    ``text.language.LANGUAGES``.
    """
    options: Mapping[str, object] = field(default_factory=dict)
    """``temperature``, ``max_tokens``, ``tools`` and the like, already checked, passed
    through by name.
    """
    answers_tools: bool = False
    """True: the client answers the calls of its tools, and the reply waits for that.
    False: a call ends the reply.
    """
    filler: Filler | None = None
    """What is said while the client's answer is awaited and nothing of the reply has
    been said yet; None: nothing.
    """
    filler_after_ms: int = AFTER_MS
    """How long the answer may take before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyOverrides:
    """What is different in one reply; None: as the settings say."""

    instructions: str | None = None
    options: Mapping[str, object] | None = None
    """Laid over the settings' options, by name."""
    spoken: bool | None = None
    """False: the reply is text and nothing else."""
    voice: VoiceSettings | None = None
    answers_tools: bool | None = None
    input: tuple[Message, ...] | None = None
    """What the model reads in place of the configured messages and the history."""
    out_of_band: bool = False
    """True: the reply is no part of the conversation. It may be made while another one
    is spoken, and neither it nor its ``input`` is remembered.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnDetection:
    """Hands-free mode: how the server finds the ends of the user's turns, and what
    interrupts a reply.
    """

    threshold: float = 0.5
    """Probability from which a frame counts as speech."""
    prefix_padding_ms: int = 300
    """Audio before the detected start that belongs to the speech."""
    silence_duration_ms: int = 500
    """Silence that ends a turn, as a policy may shorten or lengthen it."""
    create_response: bool = True
    """False: the end of a turn is reported, and not answered."""
    interrupt_response: bool = True
    """False: a reply is heard to its end whatever the user says."""
    min_interruption_ms: int = 200
    min_interruption_words: int = 0
    """Words needed to interrupt (a Han character counts as one), backchannels not
    counted; 0: any speech does.
    """


DETECTION_BOUNDS: Mapping[str, tuple[float, float]] = {
    "threshold": (0.05, 0.95),
    "prefix_padding_ms": (0, 2_000),
    "silence_duration_ms": (100, 5_000),
    "min_interruption_ms": (64, 5_000),
    "min_interruption_words": (0, 50),
}
"""What the numbers of a ``TurnDetection`` may be, whoever sets them; both ends
included.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The configuration of one conversation, complete in itself."""

    input: InputSettings = InputSettings()
    chat: ChatSettings = ChatSettings()
    voice: VoiceSettings = VoiceSettings()
    spoken: bool = True
    """False: replies are text and nothing else."""
    half_duplex: bool = False
    """True: audio that arrives during a turn is thrown away, and the next turn begins
    with none. False: it is recognised, and the results are told when the turn is over.
    """
    lead_ms: int | None = None
    """How far ahead of playback frames may leave the server; None: as fast as they are
    made.
    """
    turn_detection: TurnDetection | None = None
    """None: the client ends each turn itself."""

    @property
    def effective_lead_ms(self) -> int | None:
        """``lead_ms``; in hands-free mode frames are paced even if the client did not
        ask for it.
        """
        return (
            HANDS_FREE_LEAD_MS
            if self.lead_ms is None and self.turn_detection is not None
            else self.lead_ms
        )
