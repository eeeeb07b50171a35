"""Recognition by a sherpa-onnx model of whole utterances, decoded in batches."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from voicechat.errors import ProviderError
from voicechat.providers.interfaces import PCM_RATE_HZ, RecognitionOptions, RecognizerProvider
from voicechat.providers.sherpa_batching import BatchScheduler, closed
from voicechat.providers.sherpa_loading import Punctuate, SherpaPlan, load_recognizer
from voicechat.providers.sherpa_slots import ConcurrencySlots
from voicechat.providers.sherpa_trial import try_plan
from voicechat.providers.sherpa_words import DecodedWords, samples_of, words_of
from voicechat.providers.utterances import Recognized, Schedule, recognize_utterances
from voicechat.session.types import Transcript, Word

MAX_BATCH = 8
"""Utterances in one call of the model. Shorter ones are padded to the length of the
longest.
"""
_BYTES_PER_MS = PCM_RATE_HZ * 2 // 1000


class SherpaWholeRecognizer(RecognizerProvider):
    """A `SpeechRecognizer` on one model that all streams share, behind voice activity
    detection.
    """

    def __init__(
        self,
        plan: SherpaPlan,
        *,
        seats: ConcurrencySlots,
        schedule: Schedule,
        trial: bool,
        punctuate: Callable[[], Punctuate] | None = None,
    ) -> None:
        """``punctuate`` loads the punctuation model, which is applied to complete
        utterances.
        """
        self._plan = plan
        self._seats = seats
        self._schedule = schedule
        self._trial = trial
        self._open_punctuate = punctuate
        self._punctuate: Punctuate = str
        self._recognizer: Any = None
        self._loading = asyncio.Lock()
        self.batching: BatchScheduler[_Utterance] = BatchScheduler(
            self._decode, max_batch=MAX_BATCH, name="sherpa-whole"
        )

    async def start(self) -> None:
        """Load the model. Raises `ProviderError` (BROKEN) when it cannot be used."""
        async with self._loading:
            if self._recognizer is None:
                if self._trial:
                    await try_plan(self._plan)
                await self.batching.run_on_thread(self._load)

    async def aclose(self) -> None:
        """Release the model. Queued utterances fail, and streams fail with their next
        one.
        """
        await self.batching.aclose()
        self._recognizer = None

    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncGenerator[Transcript, None]:
        """Recognise one stream, by `recognize_utterances`. Raises as
        `SherpaStreamingRecognizer.recognize`.
        """
        async with self._seats.taken():
            await self.start()
            async with aclosing(
                recognize_utterances(
                    audio, self._words, self._schedule, hypotheses=options.hypotheses
                )
            ) as transcripts:
                async for transcript in transcripts:
                    yield transcript

    async def _words(self, pcm: bytes, complete: bool) -> Recognized:
        if self.batching.closed:
            raise closed()
        utterance = _Utterance(pcm, complete)
        self.batching.wake_job(utterance)
        try:
            return Recognized(await utterance.words, utterance.language)
        finally:
            self.batching.forget_job(utterance)

    def _load(self) -> None:
        self._recognizer, self._punctuate = load_recognizer(self._plan, self._open_punctuate)

    def _decode(self, utterances: Sequence["_Utterance"]) -> None:
        """Recognise a batch of utterances, on the thread."""
        streams = [self._recognizer.create_stream() for _ in utterances]
        for stream, utterance in zip(streams, utterances, strict=True):
            stream.accept_waveform(PCM_RATE_HZ, samples_of(utterance.pcm))
        self._recognizer.decode_streams(streams)
        for stream, utterance in zip(streams, utterances, strict=True):
            utterance.understand(stream.result, self._punctuate)


class _Utterance:
    """One call of the model, for a complete utterance or for the audio so far."""

    def __init__(self, pcm: bytes, complete: bool) -> None:
        self.pcm = pcm
        self._complete = complete
        self._found: tuple[Word, ...] = ()
        self.language = ""
        """As `Transcript.language`."""
        self.words: asyncio.Future[Sequence[Word]] = asyncio.get_running_loop().create_future()

    @property
    def ready(self) -> bool:
        """Whether the result is still missing, as `BatchJob.ready`."""
        return not self.words.done()

    @property
    def urgent(self) -> bool:
        """Whether the utterance is complete, as `BatchJob.urgent`."""
        return self._complete

    def deliver(self) -> None:
        """Return the words to the caller, as `BatchJob.deliver`."""
        if not self.words.done():
            self.words.set_result(self._found)

    def fail(self, error: ProviderError) -> None:
        """Raise the error in the caller, as `BatchJob.fail`."""
        if not self.words.done():
            self.words.set_exception(error)

    def understand(self, result: Any, punctuate: Punctuate) -> None:
        """Store the result, on the thread."""
        text = result.text.strip()
        if text and self._complete:
            text = punctuate(text)
        self.language = result.lang.strip("<|>")  # SenseVoice: "<|zh|>"
        recognised = DecodedWords(text, result.tokens, result.timestamps)
        self._found = words_of(recognised, len(self.pcm) // _BYTES_PER_MS)
