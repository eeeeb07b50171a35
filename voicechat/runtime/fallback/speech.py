"""A synthesiser with fallbacks."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import replace

from voicechat.errors import BrokenOffError, FailureKind, ProviderError
from voicechat.providers.interfaces import (
    AudioChunk,
    SpeechSynthesizer,
    SynthesizerProvider,
    VoiceOptions,
)
from voicechat.providers.wrapping import as_synthesizer
from voicechat.runtime.fallback.link import ChainLink
from voicechat.runtime.fallback.plan import AttemptPlan
from voicechat.runtime.fallback.policy import StageTimeouts
from voicechat.runtime.fallback.relay import IGNORED, Chain, ChainRequest, ItemVerdict, relay
from voicechat.runtime.loop_clock import loop_now_s

RATES_HZ = range(8_000, 192_001)


class SpeechChain(Chain[SpeechSynthesizer], SynthesizerProvider):
    """A ``SpeechSynthesizer``. A sentence that fails before its first audio is spoken
    by the next voice.
    """

    def __init__(
        self, links: Sequence[ChainLink[SpeechSynthesizer]], timeouts: StageTimeouts
    ) -> None:
        """``timeouts``: to the first audio of a sentence, and between two chunks."""
        super().__init__(links)
        self.timeouts = timeouts

    @property
    def voices(self) -> tuple[str, ...]:
        """The voices of the service itself. A fallback uses its voice of that name, or
        else its default voice.
        """
        return self.links[0].provider.voices

    def shapes_prosody(self, speech_rate: float, pitch_rate: float) -> bool:
        """Whether all links support it, because this is decided before one of them is
        chosen.
        """
        return all(
            as_synthesizer(link.provider).shapes_prosody(speech_rate, pitch_rate)
            for link in self.links
        )

    def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        """Speak one sentence on its own."""
        return self.for_one_reply().synthesize(text, voice)

    def for_one_reply(self) -> "ReplySpeech":
        """Return a synthesiser for the sentences of one reply. Once it has switched to
        a fallback, it keeps that voice.
        """
        return ReplySpeech(self)


class ReplySpeech(SynthesizerProvider):
    """A ``SpeechSynthesizer`` for one reply: see ``SpeechChain.for_one_reply``."""

    def __init__(self, chain: SpeechChain) -> None:
        self._chain = chain
        self._first = 0
        """Index of the link that is asked first."""

    @property
    def voices(self) -> tuple[str, ...]:
        """The voices of the chain."""
        return self._chain.voices

    def shapes_prosody(self, speech_rate: float, pitch_rate: float) -> bool:
        """Whether all links of the chain support it."""
        return self._chain.shapes_prosody(speech_rate, pitch_rate)

    def synthesize(self, text: str, voice: VoiceOptions) -> AsyncGenerator[AudioChunk, None]:
        """Speak a sentence. Raises `BrokenOffError` when it breaks off and another
        voice can continue.

        That voice then speaks the next requested sentence, the same or another one.
        """
        chain, first = self._chain, self._first
        links = (*chain.links[first:], *chain.links[:first])
        plan = AttemptPlan(links, loop_now_s() + chain.timeouts.first_s)
        return relay(
            chain,
            plan,
            _SentenceRequest(self, text, voice, first=first, between_s=chain.timeouts.between_s),
        )

    def keep_voice(self, link: ChainLink[SpeechSynthesizer], first: int) -> None:
        """Keep the voice of ``link`` if it is a fallback. A sentence that began before
        a change of voice does not undo the change.
        """
        position = self._chain.links.index(link)
        if position != first:
            self._first = position

    def goes_on_without(self, link: ChainLink[SpeechSynthesizer]) -> bool:
        """Return whether another voice can be asked now. If so, the next request begins
        with it.
        """
        links, now_s = self._chain.links, loop_now_s()
        if not any(other.breaker.allows(now_s) for other in links if other is not link):
            return False
        self._first = (links.index(link) + 1) % len(links)
        return True


class _SentenceRequest(ChainRequest[SpeechSynthesizer, AudioChunk]):
    def __init__(
        self, reply: ReplySpeech, text: str, voice: VoiceOptions, *, first: int, between_s: float
    ) -> None:
        """``first``: index of the link that is asked first. ``between_s``: limit
        between two chunks.
        """
        self._reply = reply
        self._first = first
        self._audio = ItemVerdict(passes=True, answers=True, within_s=between_s)
        self._text = text
        self._voice = voice
        self._rate_hz = 0

    def start_on(self, provider: SpeechSynthesizer) -> AsyncIterator[AudioChunk]:
        known = self._voice.voice in provider.voices
        return provider.synthesize(
            self._text, self._voice if known else replace(self._voice, voice="")
        )

    def judge_item(self, item: AudioChunk) -> ItemVerdict:
        """Judge a chunk. An empty one does not extend the deadline."""
        given: object = item
        if not isinstance(given, AudioChunk) or len(given.pcm) % 2 or given.rate_hz not in RATES_HZ:
            raise ProviderError("synthesiser", FailureKind.BROKEN, "gave invalid audio")
        if not item.pcm:
            return IGNORED
        if self._rate_hz not in (0, item.rate_hz):
            raise ProviderError(
                "synthesiser", FailureKind.BROKEN, "changed the sample rate within a sentence"
            )
        self._rate_hz = item.rate_hz
        return self._audio

    def on_first_item(self, link: ChainLink[SpeechSynthesizer]) -> None:
        self._reply.keep_voice(link, self._first)

    def on_empty(self, plan: AttemptPlan[SpeechSynthesizer]) -> None:
        """Fail if the text has words and another voice can be asked."""
        if plan.has_more and any(map(str.isalnum, self._text)):
            raise ProviderError("synthesiser", FailureKind.BROKEN, "made no audio")

    def on_break_off(self, link: ChainLink[SpeechSynthesizer], failure: ProviderError) -> None:
        if self._reply.goes_on_without(link):
            raise BrokenOffError(
                failure.provider, failure.kind, "another voice can go on"
            ) from None
