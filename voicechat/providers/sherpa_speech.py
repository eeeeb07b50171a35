"""Synthesis by a sherpa-onnx model (VITS, Kokoro, Kitten, Matcha), in threads, one
sentence at a time.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import AudioChunk, SynthesizerProvider, VoiceOptions
from voicechat.providers.sherpa_loading import (
    PROVIDER,
    SherpaPlan,
    load_synthesizer,
    phoneme_settings,
)
from voicechat.providers.sherpa_trial import try_plan
from voicechat.providers.speech_thread import ChunkQueue, pieces, speaking

MAX_PIECE_CHARACTERS = 200
"""About 15 s of speech. sherpa-onnx can be stopped between the sentences that it
detects, but not within one.
"""


class SherpaSynthesizer(SynthesizerProvider):
    """A `SpeechSynthesizer` on one model. The interpreter lock is released while it
    computes.
    """

    def __init__(
        self,
        plan: SherpaPlan,
        *,
        voices: Mapping[str, int],
        sentences: int,
        trial: bool,
        phonemize: Callable[[str], list[str]] | None = None,
    ) -> None:
        """``voices``: the model's speakers by name, the default first. ``sentences``:
        spoken at once, one thread each.

        ``phonemize`` returns the sentences of a text as phonemes, for models that
        cannot pronounce text.
        """
        self._plan = plan
        self._speakers = voices
        self._phonemize = phonemize
        self._trial = trial
        self._threads = ThreadPoolExecutor(sentences, thread_name_prefix="sherpa-speech")
        self._loading = asyncio.Lock()
        self._model: Any = None
        self._closed = False

    @property
    def voices(self) -> tuple[str, ...]:
        """The names that a client may request. The first is the default."""
        return tuple(self._speakers)

    def shapes_prosody(self, speech_rate: float, pitch_rate: float) -> bool:
        """Return whether both are supported: rates of 0.5 to 2, and no pitch."""
        return pitch_rate == 1 and 0.5 <= speech_rate <= 2

    async def start(self) -> None:
        """Load the model. Raises `ProviderError` (BROKEN) when it cannot be used."""
        async with self._loading:
            if self._model is None:
                if self._trial:
                    await try_plan(self._plan)
                loading = partial(load_synthesizer, self._plan)
                self._model = await asyncio.get_running_loop().run_in_executor(
                    self._threads, loading
                )

    async def aclose(self) -> None:
        """Fail the queued sentences. The current one is computed to its end in its
        thread, and discarded.
        """
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def synthesize(self, text: str, voice: VoiceOptions) -> AsyncGenerator[AudioChunk, None]:
        """Speak. Text without a letter or digit yields no chunk.

        Raises `ProviderError`: REJECTED for an unknown voice, BROKEN when the model
        fails, CONNECTIVITY after `aclose`. Cancelling stops before the next sentence
        begins; the thread is busy until then.
        """
        name = voice.voice or self.voices[0]
        if name not in self._speakers:
            raise ProviderError(PROVIDER, FailureKind.REJECTED, f"no voice {name!r}")
        if not self._closed:
            await self.start()
        # C++ does not accept a lone surrogate.
        writable = text.encode("utf-8", "replace").decode()
        for piece in pieces(writable, MAX_PIECE_CHARACTERS):
            submit = partial(self._submit, piece, self._speakers[name], voice.speech_rate)
            with speaking(PROVIDER, submit) as chunks:
                while (pcm := await chunks.next_chunk()) is not None:
                    yield AudioChunk(pcm, self._model.sample_rate)

    def _submit(self, piece: str, speaker: int, speed: float, chunks: ChunkQueue) -> Future[None]:
        if self._closed:
            raise ProviderError(PROVIDER, FailureKind.CONNECTIVITY, "closed")
        return self._threads.submit(self._speak, piece, speaker, speed, chunks)

    def _speak(self, piece: str, speaker: int, speed: float, chunks: ChunkQueue) -> None:
        def take(samples: NDArray[np.float32], _progress: float) -> int:
            # 0 stops it (offline-tts.h; sherpa-onnx's Python documentation once said
            # the contrary).
            pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
            return int(chunks.put_chunk(pcm) if pcm else True)

        try:
            if self._phonemize is None:
                self._model.generate(piece, sid=speaker, speed=speed, callback=take)
            elif sentences := self._phonemize(piece):
                self._model.generate(
                    piece, phoneme_settings(sentences, speaker, speed), callback=take
                )
        except Exception as error:
            raise ProviderError(
                PROVIDER, FailureKind.BROKEN, f"speaking failed: {type(error).__name__}"
            ) from error
