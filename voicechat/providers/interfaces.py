"""The interfaces of recognisers, chat models and synthesisers. Third parties implement
them: they are stable.

Each has one method. The optional capabilities of a service are in the base classes
`Provider`, `RecognizerProvider` and `SynthesizerProvider`, whose defaults mean that it
has none. A class that has only the one method works too; the defaults of the base class
apply.

The end of the input iterator means "finish". Closing the output iterator (``aclose``,
or cancelling the task that awaits it) means "cancel": the provider then releases
everything within one iteration of the event loop. A provider raises ``ProviderError``
and nothing else. Do not ``yield`` inside an ``asyncio.TaskGroup`` or
``asyncio.timeout`` (PEP 789).
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from voicechat.session.types import Message, SourcesCited, ToolCall, ToolExchange, Transcript

PCM_RATE_HZ = 16000
"""Sample rate of the audio that a recogniser receives: s16le mono."""


class Provider:
    """The capabilities common to all services. Derive from it, and override what
    applies.
    """

    __slots__ = ()

    async def start(self) -> None:
        """Warm up. The server awaits it before it reports that it is ready.

        After a failure it is called again if a fallback can answer meanwhile. Raises
        ``ProviderError``, or ``ConfigError`` for wrong settings.
        """

    async def aclose(self) -> None:
        """Release everything. The server awaits it when it stops."""

    async def probe(self) -> None:
        """Check at low cost whether the service works. Raises ``ProviderError`` if it
        does not.

        It is called while the circuit breaker is open. A service that cannot be checked
        does not override it; then a user's request is the trial.
        """

    @property
    def has_probe(self) -> bool:
        """Whether ``probe`` is implemented."""
        return type(self).probe is not Provider.probe

    async def prepare(self, request: "ChatRequest") -> None:
        """Of a chat model: process a prompt, so that ``reply`` to one with the same
        beginning gives its first token sooner.

        It is called while the user speaks, with the words so far, and never while the
        same conversation awaits a reply. It may return at once if the model is busy.
        Raises ``ProviderError``, which is ignored. Cancelling ends it.
        """

    @property
    def can_prepare(self) -> bool:
        """Whether ``prepare`` is implemented."""
        return type(self).prepare is not Provider.prepare

    @property
    def waiting_streams(self) -> int:
        """How many uses wait inside the provider. Admission control refuses new
        sessions while there are any.
        """
        return 0

    @property
    def real_time_factor(self) -> float:
        """The computing time of its newest results divided by the length of their
        speech, for metrics. Above 1 it is slower than real time, because the machine is
        too slow or too busy. 0 if unknown, or if it does not compute on this machine.
        """
        return 0.0

    @property
    def patience_s(self) -> float:
        """How much longer than the configured deadlines its answers may take, in
        seconds, if no other service could be asked instead.

        More than 0 for a service that computes on this machine: it is slow while the
        machine is busy, but there is no other. The service must itself end work that
        makes no progress.
        """
        return 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecognitionOptions:
    """Information about the audio that a recogniser may use."""

    source_rate_hz: int = PCM_RATE_HZ
    """The client's own sample rate. 8000 means telephone bandwidth, although the
    samples arrive at 16 kHz.
    """
    live: bool = True
    """Whether a user waits for each result. False for a recording, which is read as
    fast as it is consumed.
    """
    language: str = ""
    """The language of the user's earlier speech, as `Transcript.language`; "" if
    unknown.
    """
    caller: str = ""
    """The id of the caller's key. Streams are allocated fairly among callers. Empty if
    unknown.
    """
    hypotheses: bool = False
    """Whether partial results are wanted that change only ``Transcript.hypothesis``."""
    earlier_failures: int = 0
    """Number of streams that have failed on this audio. A chain then begins with
    another link.
    """


class SpeechRecognizer(Protocol):
    """One configured recognition service. ``recognize`` is called once per stream,
    concurrently.
    """

    def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        """Recognise s16le mono 16 kHz audio, in pieces of any even size.

        Yields transcripts: partial ones only when the text has changed (or, if they
        are wanted, the hypothesis), and a final one for each sentence. When the audio
        ends, the last sentence becomes final and the iterator ends. Silence yields
        nothing.
        """


class RecognizerProvider(Provider, ABC):
    """A `SpeechRecognizer` with its optional capabilities."""

    @abstractmethod
    def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        """Recognise one stream, as `SpeechRecognizer.recognize`."""

    @property
    def first_use_grace_s(self) -> float:
        """How much longer than usual the last result of a stream that begins now may
        take, in seconds.

        More than 0 while the service may have to load its model. Chains override it; a
        service need not.
        """
        return 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """Fields of a server's answer that the engine does not use. REST clients receive
    them unchanged.

    They are grouped by their place in OpenAI's format. A field that is null in the
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
    """Extra fields of this piece, such as its log probabilities."""


@dataclass(frozen=True, slots=True)
class ThoughtDelta:
    """The next piece of the model's thoughts before the answer (``reasoning_content``).

    It is never spoken and never remembered, but it shows that the model is working.
    Empty text: the model thinks without showing it.
    """

    text: str = ""
    extras: Extras | None = None


@dataclass(frozen=True, slots=True)
class ReplyFinished:
    """The end of the model's answer: why it stopped, and its token usage."""

    finish_reason: str = "stop"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    usage: Mapping[str, object] | None = None
    """The server's usage object, unchanged; None if it sent none."""
    extras: Extras | None = None
    """Extra fields of the last events, such as all ``refs`` of the answer."""


@dataclass(frozen=True, slots=True)
class ToolsStarted:
    """The model runs tools itself, as soon as the next part is requested.

    The engine requests it only once the user's turn has surely ended, and then waits
    ``within_s`` longer than for text.
    """

    within_s: float


ReplyPart: TypeAlias = (
    TextDelta
    | ThoughtDelta
    | Extras
    | ToolCall
    | ToolsStarted
    | ToolExchange
    | SourcesCited
    | ReplyFinished
)
"""``ToolCall`` is for the client. Tools that the model runs itself are
``ToolsStarted``, then ``ToolExchange``, which is remembered; most models yield neither.
``Extras`` on its own: an event of the server without anything else. ``SourcesCited``
belongs to the text before it.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A request to a chat model."""

    messages: tuple[Message, ...]
    options: Mapping[str, object] = field(default_factory=dict)
    """``temperature``, ``max_tokens``, ``tools``, ``tool_choice`` and others, with
    OpenAI's names and values. A model ignores options that it does not know.
    """


class ChatModel(Protocol):
    """One configured chat model."""

    def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        """Answer the last message. Text deltas come as soon as they exist;
        ``ReplyFinished`` at most once, last.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceOptions:
    """How a text is spoken."""

    voice: str = ""
    """One of the synthesiser's ``voices``; empty: its default."""
    model: str = ""
    speech_rate: float = 1.0
    """Speech rate relative to normal, 0.5 to 2. It differs from 1 only if
    ``shapes_prosody`` returned True.
    """
    pitch_rate: float = 1.0
    """Fundamental frequency relative to normal, 0.5 to 2. It differs from 1 only as
    above.
    """


@dataclass(slots=True)
class AudioChunk:
    """Synthesised audio: s16le mono at ``rate_hz``. All chunks of one synthesis have
    the same rate.

    Do not modify one. The class is not frozen, because a reply has hundreds of chunks,
    and creating a frozen one takes 1 us more.
    """

    pcm: bytes
    rate_hz: int


class SpeechSynthesizer(Protocol):
    """One configured synthesis service. `SynthesizerProvider` adds which prosody it
    supports.
    """

    @property
    def voices(self) -> tuple[str, ...]:
        """The names that a client may request. The first is the default."""

    def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        """Speak one sentence. The first chunk comes as soon as it exists. A text
        without words yields none.
        """


class SynthesizerProvider(Provider, ABC):
    """A `SpeechSynthesizer` with its optional capabilities."""

    @property
    @abstractmethod
    def voices(self) -> tuple[str, ...]:
        """The names that a client may request. The first is the default."""

    @abstractmethod
    def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        """Speak one sentence, as `SpeechSynthesizer.synthesize`."""

    def shapes_prosody(self, speech_rate: float, pitch_rate: float) -> bool:
        """Return whether the service applies these rates of ``VoiceOptions`` itself.

        If not, the engine changes the finished speech. Volume is always applied by the
        engine.
        """
        return False

    def for_one_reply(self) -> SpeechSynthesizer:
        """Return a synthesiser for the sentences of one reply. It may keep state
        between them.
        """
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequest:
    """Texts, and for some services pictures, to embed."""

    texts: tuple[str, ...]
    images: tuple[str, ...] = ()
    """Pictures as addresses or base64, only for a service that ``embeds_images``."""
    purpose: Literal["query", "passage"] = "passage"
    """Whether the texts are searched for or searched in. Some models embed the two
    differently.
    """
    dimensions: int | None = None
    """Length of each vector; None: the model's own. A shorter vector is the beginning
    of the longer one, normalised again, if the model was trained for it.
    """
    model: str = ""
    """The model that the client named. A service with a configured model ignores it."""
    normalized: bool = True
    """Whether vectors must have length 1. False: as the model made them, if the service
    can.
    """


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """The vectors of one request."""

    vectors: npt.NDArray[np.float32]
    """Shape (texts + images, dimensions): the texts first, in their order. Each has
    length 1, unless the request was not ``normalized``.
    """
    prompt_tokens: int | None = None
    """Tokens of all texts; None if the service does not count them."""


class TextEmbedder(Provider, ABC):
    """Turns texts into vectors that are near each other when the meanings are."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """The model, its version and the length of its vectors, such as
        ``openai/text-embedding-3-small/1536``. Vectors of different identities cannot
        be compared.
        """

    @property
    def embeds_images(self) -> bool:
        """Whether requests may have ``images``."""
        return False

    @property
    def longest_batch(self) -> int:
        """How many texts and pictures one request may have."""
        return 64

    @abstractmethod
    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Embed all texts. A text longer than the model's context is embedded by its
        beginning.

        Raises ``RequestRefusedError`` for dimensions that the model does not have,
        otherwise ``ProviderError``.
        """
