"""A synthesiser with others that stand in for it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import replace

from voicechat.errors import BrokenOffError, FailureKind, ProviderError
from voicechat.providers.interfaces import AudioChunk, SpeechSynthesizer, VoiceOptions
from voicechat.runtime.edge import closing
from voicechat.runtime.fallback.link import Link
from voicechat.runtime.fallback.plan import Plan
from voicechat.runtime.fallback.policy import Patience
from voicechat.runtime.fallback.relay import Chain, relay

RATES_HZ = range(8_000, 192_001)


class SpeechChain(Chain[SpeechSynthesizer]):
    """A ``SpeechSynthesizer``. A sentence that fails before its first audio is spoken by the next voice."""

    def __init__(self, links: Sequence[Link[SpeechSynthesizer]], patience: Patience) -> None:
        """``patience``: to the first audio of a sentence, and between two pieces of it."""
        super().__init__(links)
        self.patience = patience

    @property
    def voices(self) -> tuple[str, ...]:
        """Those of the service itself; who stands in speaks with a voice of that name, else with its default."""
        return self.links[0].provider.voices

    def shapes_prosody(self, speech_rate: float, pitch_rate: float) -> bool:
        """See ``SpeechSynthesizer``: only what all of them can, because it is decided before anybody is asked."""
        return all(_shapes(link.provider, speech_rate, pitch_rate) for link in self.links)

    def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        """See ``SpeechSynthesizer``: one sentence on its own."""
        return self.for_one_reply().synthesize(text, voice)

    def for_one_reply(self) -> "ReplySpeech":
        """Give a synthesiser for the sentences of one reply: once it has changed the voice, it stays with that."""
        return ReplySpeech(self)


class ReplySpeech:
    """A ``SpeechSynthesizer`` for one reply: see ``SpeechChain.for_one_reply``."""

    def __init__(self, chain: SpeechChain) -> None:
        self._chain = chain
        self._first = 0
        """Of the chain, the link that is asked first."""

    @property
    def voices(self) -> tuple[str, ...]:
        """See ``SpeechSynthesizer``."""
        return self._chain.voices

    def shapes_prosody(self, speech_rate: float, pitch_rate: float) -> bool:
        """See ``SpeechSynthesizer``."""
        return self._chain.shapes_prosody(speech_rate, pitch_rate)

    async def synthesize(self, text: str, voice: VoiceOptions) -> AsyncGenerator[AudioChunk, None]:
        """Speak a sentence. Raises `BrokenOffError` when one breaks off and another voice can go on.

        What is asked next, the same sentence or another one, is then spoken by that voice.
        """
        chain, first = self._chain, self._first
        plan = Plan((*chain.links[first:], *chain.links[:first]), _now_s() + chain.patience.first_s)
        rate_hz: set[int] = set()
        begun = False
        asked: list[SpeechSynthesizer] = []

        def begin(synthesizer: SpeechSynthesizer) -> AsyncIterator[AudioChunk]:
            asked.append(synthesizer)
            known = voice.voice in synthesizer.voices
            chunks = synthesizer.synthesize(text, voice if known else replace(voice, voice=""))
            return _audible(chunks) if plan.has_more and any(map(str.isalnum, text)) else chunks

        def check(chunk: AudioChunk) -> bool:
            return _check(chunk, rate_hz)

        chunks = relay(chain, plan, begin, check, lambda _: chain.patience.between_s)
        try:
            async with closing(chunks):
                async for chunk in chunks:
                    if not begun:
                        begun = True
                        self._note(asked[-1], first)
                    yield chunk
        except ProviderError as failure:
            if not begun or not self._others_than(asked[-1]):
                raise
            self._first = (self._position(asked[-1]) + 1) % len(chain.links)
            raise BrokenOffError(failure.provider, failure.kind, "another voice can go on") from None

    def _note(self, synthesizer: SpeechSynthesizer, first: int) -> None:
        """Stay with who stands in; a sentence that began before the change of voice does not take it back."""
        position = self._position(synthesizer)
        if position != first:
            self._first = position

    def _position(self, synthesizer: SpeechSynthesizer) -> int:
        return next(n for n, link in enumerate(self._chain.links) if link.provider is synthesizer)

    def _others_than(self, synthesizer: SpeechSynthesizer) -> bool:
        """Whether another voice can be asked now."""
        links, now_s = self._chain.links, _now_s()
        return any(link.breaker.allows(now_s) for link in links if link.provider is not synthesizer)


async def _audible(chunks: AsyncIterator[AudioChunk]) -> AsyncGenerator[AudioChunk, None]:
    """Take it for a failure when nothing comes of a text that has words, as long as another voice can be asked."""
    empty = True
    async with closing(chunks):
        async for chunk in chunks:
            yield chunk
            empty = empty and not chunk.pcm
    if empty:
        raise ProviderError("synthesiser", FailureKind.BROKEN, "made no audio")


def _check(chunk: AudioChunk, rates_hz: set[int]) -> bool:
    """An empty chunk is no sign of life. ``rates_hz``: of the chunks before it."""
    given: object = chunk
    if not isinstance(given, AudioChunk) or len(given.pcm) % 2 or given.rate_hz not in RATES_HZ:
        raise ProviderError("synthesiser", FailureKind.BROKEN, "gave what is no audio")
    if not chunk.pcm:
        return False
    rates_hz.add(chunk.rate_hz)
    if len(rates_hz) > 1:
        raise ProviderError("synthesiser", FailureKind.BROKEN, "changed the sample rate within a sentence")
    return True


def _shapes(synthesizer: SpeechSynthesizer, speech_rate: float, pitch_rate: float) -> bool:
    shapes = getattr(synthesizer, "shapes_prosody", None)
    return shapes is not None and bool(shapes(speech_rate, pitch_rate))


def _now_s() -> float:
    return asyncio.get_running_loop().time()
