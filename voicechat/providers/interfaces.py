"""What a recogniser, a chat model and a synthesiser must be. Outsiders implement these:
they stay stable.

One method each. What a service can do besides stands in the base classes `Provider`,
`RecognizerProvider` and `SynthesizerProvider`, whose defaults say that it cannot. A
class that has only the method works as well: what it lacks is taken to be as in the
base class.

The end of the input iterator means "finish"; closing the output iterator (``aclose``,
or cancelling the task that awaits it) means "cancel": the provider then releases
everything within one turn of the event loop. A provider raises ``ProviderError`` and
nothing else. Do not ``yield`` inside an ``asyncio.TaskGroup`` or ``asyncio.timeout``
(PEP 789).
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from voicechat.session.vocabulary import Message, ToolCall, ToolExchange, Transcript

PCM_RATE_HZ = 16000
"""Sample rate of the audio that a recogniser is given: s16le mono."""


class Provider:
    """What every configured service has besides its own method. Derive from it, and
    override what applies.
    """

    __slots__ = ()

    async def start(self) -> None:
        """Warm up: it is awaited before the server says that it is ready.

        Called again after a failure when others can stand in meanwhile. Raises
        ``ProviderError``, or ``ConfigError`` for wrong settings.
        """

    async def aclose(self) -> None:
        """Release everything: it is awaited when the server stops."""

    async def probe(self) -> None:
        """Ask the service cheaply whether it works. Raises ``ProviderError`` while it
        does not.

        It is called while the service is left alone after failures. A service that
        cannot be asked does not override it, and is tried with a user's request.
        """

    @property
    def has_probe(self) -> bool:
        """Whether ``probe`` says anything."""
        return type(self).probe is not Provider.probe

    @property
    def waiting_streams(self) -> int:
        """How many uses wait for a place in it. Admission control refuses newcomers
        while there are any.
        """
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecognitionOptions:
    """What a recogniser may want to know of the audio besides the samples."""

    source_rate_hz: int = PCM_RATE_HZ
    """The client's own sample rate: 8000 means telephone bandwidth, although samples
    arrive at 16 kHz.
    """
    live: bool = True
    """Somebody waits for each result. False: a recording, which comes as fast as it is
    taken.
    """
    earlier_failures: int = 0
    """So many streams have failed on this audio already: who has others to stand in
    begins with another one.
    """


class SpeechRecognizer(Protocol):
    """One configured recognition service; ``recognize`` is called once per stream,
    concurrently.
    """

    def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        """Recognise s16le mono 16 kHz audio, in pieces of any even size.

        Yields transcripts: partial ones only when the text changed, each sentence
        closed by a final one. When the audio ends, the last sentence is made final and
        the iterator ends. Silence gives nothing.
        """


class RecognizerProvider(Provider, ABC):
    """A `SpeechRecognizer` with what it can do besides."""

    @abstractmethod
    def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        """See `SpeechRecognizer`."""

    @property
    def first_use_grace_s(self) -> float:
        """How much longer than usual, in seconds, a stream that begins now may take to
        its last result.

        More than 0 while the service may have to load its model first. Chains say so; a
        service need not.
        """
        return 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """Fields of a server's answer that the engine itself does not use. Clients of the
    REST API get them unchanged.

    They are grouped by where they stood in OpenAI's form. A field that is null in the
    answer is absent here.
    """

    message: Mapping[str, object] = field(default_factory=dict)
    """Beside the text, in ``delta`` or ``message``: ``refusal``, ``annotations``."""
    choice: Mapping[str, object] = field(default_factory=dict)
    """Beside ``delta`` or ``message``: ``logprobs``, ``refs``."""
    answer: Mapping[str, object] = field(default_factory=dict)
    """Beside ``choices``: ``system_fingerprint``, ``citations``."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the reply's text."""

    text: str
    extras: Extras | None = None
    """What stood beside this piece, such as its log probabilities."""


@dataclass(frozen=True, slots=True)
class ThoughtDelta:
    """The next piece of what the model thinks before it answers
    (``reasoning_content``).

    It is never spoken and never remembered, but it shows that the model is at work.
    Empty text: the model thinks and does not say what.
    """

    text: str = ""
    extras: Extras | None = None


@dataclass(frozen=True, slots=True)
class ReplyFinished:
    """The model's own closing word: why it stopped, and what it used."""

    finish_reason: str = "stop"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    usage: Mapping[str, object] | None = None
    """The whole usage object as the server wrote it, details included; None: it wrote
    none.
    """
    extras: Extras | None = None
    """What stood in the last events of the answer, such as all ``refs`` of it."""


@dataclass(frozen=True, slots=True)
class ToolsStarted:
    """The model carries tools out itself, as soon as the next part is asked for.

    The engine does not ask before the user's turn has surely ended, and then waits
    ``within_s`` longer than for text.
    """

    within_s: float


ReplyPart: TypeAlias = (
    TextDelta | ThoughtDelta | Extras | ToolCall | ToolsStarted | ToolExchange | ReplyFinished
)
"""``ToolCall`` asks the client. Tools that the model carries out itself are
``ToolsStarted``, then ``ToolExchange``, which is remembered; most models give neither.
``Extras`` on its own: an event of the server that had nothing else.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """What a chat model is asked."""

    messages: tuple[Message, ...]
    options: Mapping[str, object] = field(default_factory=dict)
    """``temperature``, ``max_tokens``, ``tools``, ``tool_choice`` and the like by their
    OpenAI names and in their OpenAI form; a model ignores what it does not know.
    """


class ChatModel(Protocol):
    """One configured chat model."""

    def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        """Answer the last message. Text deltas come as soon as they exist;
        ``ReplyFinished`` at most once, last.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceOptions:
    """How a text is to be spoken."""

    voice: str = ""
    """One of the synthesiser's ``voices``; empty: its default."""
    model: str = ""
    speech_rate: float = 1.0
    """How many times as fast as usual, 0.5 to 2; other than 1 only if
    ``shapes_prosody`` says so.
    """
    pitch_rate: float = 1.0
    """How many times the usual fundamental frequency, 0.5 to 2; other than 1 likewise.
    """


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """Synthesised audio: s16le mono at ``rate_hz``. All chunks of one synthesis have
    the same rate.
    """

    pcm: bytes
    rate_hz: int


class SpeechSynthesizer(Protocol):
    """One configured synthesis service. `SynthesizerProvider` says which prosody it
    carries out itself.
    """

    @property
    def voices(self) -> tuple[str, ...]:
        """Names a client may ask for. The first is the default."""

    def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        """Speak one sentence. The first chunk comes as soon as it exists. Nothing
        speakable gives no chunk.
        """


class SynthesizerProvider(Provider, ABC):
    """A `SpeechSynthesizer` with what it can do besides."""

    @property
    @abstractmethod
    def voices(self) -> tuple[str, ...]:
        """See `SpeechSynthesizer`."""

    @abstractmethod
    def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        """See `SpeechSynthesizer`."""

    def shapes_prosody(self, speech_rate: float, pitch_rate: float) -> bool:
        """Whether it carries out these ``speech_rate`` and ``pitch_rate`` of
        ``VoiceOptions`` itself.

        If not, the engine changes the finished speech. Volume is always the engine's
        matter.
        """
        return False

    def for_one_reply(self) -> SpeechSynthesizer:
        """Give a synthesiser for the sentences of one reply, which may keep something
        from each to the next.
        """
        return self
