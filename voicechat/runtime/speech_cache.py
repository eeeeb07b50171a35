"""Speech that is wanted again and again, kept: greetings, apologies, confirmations.

What is kept are the synthesiser's samples, not what was encoded of them: an encoded
stream is one per reply and cannot be put together from pieces, while pacing, volume and
echo need samples. Encoding a sentence's first tenth of a second again costs less than a
millisecond; synthesising it costs a network's round trip, or a processor's time.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator

from voicechat.providers.interfaces import AudioChunk, SpeechSynthesizer, VoiceOptions
from voicechat.providers.wrapping import WrappingSynthesizer
from voicechat.runtime.provider_deadlines import closing

MAX_CHARACTERS = 200
"""Longer texts are hardly ever said twice."""
SEEN_ONCE = 4_096
"""Texts of which it is remembered, by a number each, that they have been said."""


class CachingSynthesizer(WrappingSynthesizer):
    """A `SpeechSynthesizer` that asks another one only for what it does not know by
    heart.

    Kept is what was asked for a second time and was made to its end, in the order of
    its last use, up to ``max_bytes`` of samples: what is said only once, as most of a
    conversation is, is never kept. Failures are never kept.
    """

    def __init__(self, synthesizer: SpeechSynthesizer, max_bytes: int) -> None:
        super().__init__(synthesizer)
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[str, VoiceOptions], tuple[AudioChunk, ...]] = OrderedDict()
        self._seen: OrderedDict[int, None] = OrderedDict()
        self.held_bytes = 0
        """Samples that are kept."""
        self.hits = 0
        self.misses = 0
        """Short texts that were known, and that were not."""

    async def aclose(self) -> None:
        """Close the synthesiser, and forget everything."""
        self._kept.clear()
        self.held_bytes = 0
        await super().aclose()

    def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        """See `SpeechSynthesizer`. What is known comes at once, in the pieces in which
        it came at first.
        """
        if len(text) > MAX_CHARACTERS:
            return self._inner.synthesize(text, voice)
        key = (text, voice)
        known = self._kept.get(key)
        if known is not None:
            self.hits += 1
            self._kept.move_to_end(key)
            return _replayed(known)
        self.misses += 1
        chunks = self._inner.synthesize(text, voice)
        return self._keeping(key, chunks) if self._asked_before(key) else chunks

    def _asked_before(self, key: tuple[str, VoiceOptions]) -> bool:
        number = hash(key)
        if number in self._seen:
            return True
        self._seen[number] = None
        if len(self._seen) > SEEN_ONCE:
            self._seen.popitem(last=False)
        return False

    async def _keeping(
        self, key: tuple[str, VoiceOptions], chunks: AsyncIterator[AudioChunk]
    ) -> AsyncIterator[AudioChunk]:
        made: list[AudioChunk] = []
        made_bytes = 0
        async with closing(chunks):
            async for chunk in chunks:
                made_bytes += len(chunk.pcm)
                if made_bytes <= self._max_bytes:
                    made.append(chunk)
                yield chunk
        if made and made_bytes <= self._max_bytes:
            self._keep(key, tuple(made), made_bytes)

    def _keep(
        self, key: tuple[str, VoiceOptions], made: tuple[AudioChunk, ...], made_bytes: int
    ) -> None:
        self.held_bytes += made_bytes - _size_bytes(self._kept.pop(key, ()))
        self._kept[key] = made
        while self.held_bytes > self._max_bytes:
            self.held_bytes -= _size_bytes(self._kept.popitem(last=False)[1])


async def _replayed(chunks: tuple[AudioChunk, ...]) -> AsyncIterator[AudioChunk]:
    for chunk in chunks:
        yield chunk


def _size_bytes(chunks: tuple[AudioChunk, ...]) -> int:
    return sum(len(chunk.pcm) for chunk in chunks)
