"""The types that the session, the dialects and the providers share: words, transcripts,
settings.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from voicechat.session.filler import AFTER_MS, Filler

Message: TypeAlias = Mapping[str, object]
"""One chat message in the form of chat completions: ``{"role": "user", "content":
"..."}``; other keys are passed through.

An assistant message that called tools has ``"tool_calls": [{"id", "type": "function",
"function": {"name", "arguments"}}]``; ``arguments`` is JSON text and ``content`` may be
empty. After it, for each call, follows ``{"role": "tool", "tool_call_id": id,
"content": text}``. A chat model never reads a call without its answer.
"""


@dataclass(frozen=True, slots=True)
class Item:
    """One message of a conversation's history."""

    id: str
    message: Message
    reply: int = 0
    """The number of the reply that it belongs to; 0: none."""


@dataclass(frozen=True, slots=True)
class Word:
    """One recognised word. Times are milliseconds of audio."""

    text: str
    begin_ms: int
    end_ms: int
    punctuation: str = ""
    fixed: bool = False
    """True: later results of the sentence will not change the word."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """The recogniser's result for one sentence so far.

    ``text`` is cumulative within the sentence. ``end_ms`` is a number exactly when the
    sentence is final: then the next transcript opens a new sentence. Times are
    milliseconds of audio since the start of the recogniser's input (the runtime
    converts them to the connection's time line).
    """

    text: str
    begin_ms: int
    end_ms: int | None = None
    words: tuple[Word, ...] = ()
    language: str = ""
    """The language that the recogniser detected, as ISO 639-1 (``zh``, ``en``); empty:
    it reports none.
    """
    hypothesis: str = ""
    """Of a partial result: everything recognised of the sentence so far, including
    words that may still change. It is not shown to anybody; a reply may be prepared or
    begun on it. Empty: ``text`` is everything.
    """
    settled: bool = True
    """False: the result was made while the user spoke, so that the last words are
    missing or are guesses; no reply is begun on it.
    """

    @property
    def final(self) -> bool:
        """Whether the sentence is finished."""
        return self.end_ms is not None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A piece of a tool call, as chat completions stream it: the first piece has ``id``
    and ``name``.
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
    """A tool's answer, as the model reads it, and how long it took.

    ``tool`` is the configured name, never a name that the model made up.
    """

    content: str
    outcome: ToolOutcome
    took_ms: int
    tool: str


@dataclass(frozen=True, slots=True)
class ToolExchange:
    """Whole tool calls that the server carried out, and their answers, one for each
    call in the same order.
    """

    calls: tuple[ToolCall, ...]
    answers: tuple[ToolAnswer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Something that a reply cites."""

    index: int
    """Its place, from 1, among the sources of the reply in the order in which they are
    first cited.
    """
    kind: str
    """``file``: a passage of a document; ``qa``: a question that has a fixed answer."""
    title: str
    content: str
    """The cited text: the passage, or the answer."""
    url: str
    """Where the source can be read, with the key of the conversation; empty:
    nowhere.
    """


@dataclass(frozen=True, slots=True)
class SourcesCited:
    """A reply cites these sources directly behind its text so far."""

    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a chat model reported to have used."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        """Return the sum with the usage of another request of the same reply."""
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )


PIECE_MS = 100
"""The default length of the pieces of a reply's audio."""
HANDS_FREE_LEAD_MS = 1_500
"""How far ahead of playback audio is sent in hands-free mode by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSettings:
    """How to read the client's audio."""

    format: str = "pcm"
    """A name that ``parse_input_format`` accepts."""
    sample_rate_hz: int = 16000
    silence_allowed: bool = False
    """True: a user who stays silent does not lose the connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceSettings:
    """How to speak the reply."""

    model: str = ""
    """The synthesiser's model, if it has several; empty: its default. ``voice``
    likewise.
    """
    voice: str = ""
    format: str = "PCM_16000HZ_MONO_16BIT"
    """A name that ``parse_voice_format`` accepts."""
    piece_ms: int = PIECE_MS
    """The length of the pieces of audio, except for a shorter first one: an
    interruption can be late by this much, and pacing cannot be finer. At least 20.
    """
    volume: float = 50
    """0 to 100; 50: unchanged."""
    level_dbov: float | None = None
    """The active speech level (ITU-T P.56) to which every voice is brought, before
    ``volume``; None: unchanged.
    """
    speech_rate: float = 1
    """0.5 to 2: the factor of the speed."""
    marks: Set[str] = frozenset()
    """Words, in lower case, that are not spoken where they stand alone in square
    brackets, ``[]`` or ``【】``: they are meant for the client.
    """
    pitch_rate: float = 1
    """0.5 to 2: the factor of the voice's fundamental frequency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSettings:
    """What the chat model is asked, besides the conversation itself."""

    model: str = ""
    """A configured chat model; empty: the one with which the connection was opened."""
    messages: tuple[Message, ...] = ()
    """Messages before the conversation, which remain when the history is cleared."""
    instructions: str = ""
    """The system message, before all others; empty: none."""
    instructions_by_language: Mapping[str, str] = field(default_factory=dict)
    """The system message to use instead when the user's last words are in that
    language, which is one of ``text.language.LANGUAGES``.
    """
    options: Mapping[str, object] = field(default_factory=dict)
    """``temperature``, ``max_tokens``, ``tools`` and the like, already checked, passed
    on by name.
    """
    answers_tools: bool = False
    """True: the client answers the calls of its tools, and the reply waits for the
    answers. False: a call ends the reply.
    """
    filler: Filler | None = None
    """What is spoken while the client's answer is awaited, if nothing of the reply was
    spoken; None: nothing.
    """
    filler_after_ms: int = AFTER_MS
    """How long to wait for the answer before the filler is spoken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyOverrides:
    """What differs in one reply; None: as in the settings."""

    instructions: str | None = None
    options: Mapping[str, object] | None = None
    """Options that replace those of the settings with the same names."""
    spoken: bool | None = None
    """False: the reply is text only."""
    voice: VoiceSettings | None = None
    answers_tools: bool | None = None
    input: tuple[Message, ...] | None = None
    """What the model reads in place of the configured messages and the history."""
    out_of_band: bool = False
    """True: the reply is no part of the conversation. It may be made while another one
    is spoken, and neither it nor its ``input`` is added to the history.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnDetection:
    """Hands-free mode: how to find the ends of the user's turns, and what interrupts a
    reply.
    """

    threshold: float = 0.5
    """The probability from which a frame counts as speech."""
    prefix_padding_ms: int = 300
    """Audio before the detected start that belongs to the speech."""
    silence_duration_ms: int = 500
    """The silence that ends a turn; a policy may shorten or lengthen it."""
    create_response: bool = True
    """False: the end of a turn is reported and not answered."""
    interrupt_response: bool = True
    """False: a reply is played to its end, whatever the user says."""
    min_interruption_ms: int = 200
    min_interruption_words: int = 0
    """The words needed to interrupt (a Han character counts as one), without
    backchannels; 0: any speech interrupts.
    """


DETECTION_BOUNDS: Mapping[str, tuple[float, float]] = {
    "threshold": (0.05, 0.95),
    "prefix_padding_ms": (0, 2_000),
    "silence_duration_ms": (100, 5_000),
    "min_interruption_ms": (64, 5_000),
    "min_interruption_words": (0, 50),
}
"""The allowed range of the numbers of a ``TurnDetection``, both ends included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole configuration of one conversation."""

    input: InputSettings = InputSettings()
    chat: ChatSettings = ChatSettings()
    voice: VoiceSettings = VoiceSettings()
    spoken: bool = True
    """False: replies are text only."""
    half_duplex: bool = False
    """True: audio that arrives during a turn is dropped, and the next turn begins
    without audio. False: it is recognised, and the results are reported when the turn
    is over.
    """
    lead_ms: int | None = None
    """How far ahead of playback frames may be sent; None: as fast as they are made."""
    turn_detection: TurnDetection | None = None
    """None: the client ends each turn."""

    @property
    def effective_lead_ms(self) -> int | None:
        """``lead_ms``; in hands-free mode frames are paced even if the client did not
        ask for pacing.
        """
        return (
            HANDS_FREE_LEAD_MS
            if self.lead_ms is None and self.turn_detection is not None
            else self.lead_ms
        )
