"""Applies the client's speech rate and pitch: in the synthesiser if it supports them,
else by a filter on its output.
"""

from collections.abc import AsyncIterator
from functools import partial

from voicechat.audio.prosody import ProsodyFilter
from voicechat.providers.interfaces import AudioChunk, SpeechSynthesizer, VoiceOptions
from voicechat.providers.wrapping import as_synthesizer
from voicechat.runtime.encoding import EncodingThreads
from voicechat.runtime.provider_deadlines import closing
from voicechat.session.types import VoiceSettings


class ProsodySynthesizer:
    """A synthesiser with the voice settings of one reply."""

    def __init__(
        self, synthesizer: SpeechSynthesizer, voice: VoiceSettings, threads: EncodingThreads
    ) -> None:
        """``threads`` run the filter if the synthesiser cannot change the prosody."""
        provider = as_synthesizer(synthesizer)
        # A chain of synthesisers keeps one voice for a whole reply.
        self._synthesizer = provider.for_one_reply()
        self._threads = threads
        self._voice = voice
        wished = (voice.speech_rate, voice.pitch_rate) != (1, 1)
        self._asks = wished and provider.shapes_prosody(voice.speech_rate, voice.pitch_rate)
        self._filters = wished and not self._asks

    def synthesize(self, text: str) -> AsyncIterator[AudioChunk]:
        """Speak one sentence; raises as ``SpeechSynthesizer.synthesize``."""
        voice = VoiceOptions(
            voice=self._voice.voice,
            model=self._voice.model,
            speech_rate=self._voice.speech_rate if self._asks else 1.0,
            pitch_rate=self._voice.pitch_rate if self._asks else 1.0,
        )
        chunks = self._synthesizer.synthesize(text, voice)
        return self._filtered(chunks) if self._filters else chunks

    async def _filtered(self, chunks: AsyncIterator[AudioChunk]) -> AsyncIterator[AudioChunk]:
        shaping: ProsodyFilter | None = None
        rate_hz = 0
        async with closing(chunks):
            async for chunk in chunks:
                if shaping is None:
                    rate_hz = chunk.rate_hz
                    shaping = ProsodyFilter(
                        rate_hz, self._voice.speech_rate, self._voice.pitch_rate
                    )
                yield AudioChunk(
                    await self._threads.run(partial(shaping.push_audio, chunk.pcm)), rate_hz
                )
            if shaping is not None:
                yield AudioChunk(await self._threads.run(shaping.finish_stream), rate_hz)
