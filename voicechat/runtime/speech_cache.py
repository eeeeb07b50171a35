"""A cache of synthesised speech that recurs: greetings, fallback messages,
confirmations.

It holds the synthesiser's samples, not encoded audio: an encoded stream belongs to one
reply and cannot be put together from pieces, and pacing, volume and echo detection need
samples. Encoding the first 100 ms of a sentence again takes less than 1 ms;
synthesising it takes a network round trip or CPU time.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator

from voicechat.providers.interfaces import AudioChunk, SpeechSynthesizer, VoiceOptions
from voicechat.providers.wrapping import WrappingSynthesizer
from voicechat.runtime.provider_deadlines import closing

MAX_CHARACTERS = 200
"""Longer texts are not cached: they rarely recur."""
SEEN_ONCE = 4_096
"""Number of texts whose hash is remembered after they were spoken once."""


class CachingSynthesizer(WrappingSynthesizer):
    """A `SpeechSynthesizer` that calls another one only for speech that is not cached.

    Speech enters the cache when it is requested for the second time and completes, so
    most of a conversation, which is said once, never does. Entries are evicted in LRU
    order beyond ``max_bytes`` of samples. Failures are not cached.
    """

    def __init__(self, synthesizer: SpeechSynthesizer, max_bytes: int) -> None:
        super().__init__(synthesizer)
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[str, VoiceOptions], tuple[AudioChunk, ...]] = OrderedDict()
        self._seen: OrderedDict[int, None] = OrderedDict()
        self.held_bytes = 0
        """Bytes of samples in the cache."""
        self.hits = 0
        self.misses = 0
        """Requests for short texts that were in the cache, and that were not."""

    async def aclose(self) -> None:
        """Close the synthesiser, and empty the cache."""
        self._kept.clear()
        self.held_bytes = 0
        await super().aclose()

    def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        """Speak a sentence. Cached speech comes at once, in its original chunks."""
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
