"""Recognition by a streaming sherpa-onnx model: results while the audio arrives, all
sessions decoded in batches.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

from voicechat.errors import ProviderError
from voicechat.providers.interfaces import PCM_RATE_HZ, RecognitionOptions, RecognizerProvider
from voicechat.providers.sherpa_batching import BatchScheduler, closed
from voicechat.providers.sherpa_loading import Punctuate, SherpaPlan, load_recognizer
from voicechat.providers.sherpa_slots import ConcurrencySlots
from voicechat.providers.sherpa_trial import try_plan
from voicechat.providers.sherpa_words import DecodedWords, samples_of, words_of
from voicechat.session.types import Transcript

PIECE_BYTES = PCM_RATE_HZ // 50 * 2
"""20 ms, so that the result does not depend on how the samples are split. sherpa-onnx
takes samples as Python numbers, which holds the interpreter lock: for 10 microseconds
per piece.
"""
WINDOW_BYTES = PCM_RATE_HZ * 2 * 2
"""Backpressure: at most 2 s of a stream wait to be decoded."""
MAX_RESULTS = 64
"""Results that may wait for their reader; beyond that the stream is not decoded
further.
"""
MAX_BATCH = 64
"""Streams in one call of the model. The results of a batch come together, when its last
stream is computed.
"""
_BYTES_PER_MS = PCM_RATE_HZ * 2 // 1000


class SherpaStreamingRecognizer(RecognizerProvider):
    """A `SpeechRecognizer` on one model that all streams share."""

    def __init__(
        self,
        plan: SherpaPlan,
        *,
        seats: ConcurrencySlots,
        tail_ms: int,
        trial: bool,
        punctuate: Callable[[], Punctuate] | None = None,
    ) -> None:
        """``tail_ms``: silence after the audio, for the model's look-ahead."""
        self._plan = plan
        self._seats = seats
        self._tail = bytes(tail_ms * _BYTES_PER_MS)
        self._trial = trial
        self._open_punctuate = punctuate
        self._punctuate: Punctuate = str
        self._recognizer: Any = None
        self._loading = asyncio.Lock()
        self._streams: set[_StreamDecoding] = set()
        self.batching: BatchScheduler[_StreamDecoding] = BatchScheduler(
            self._decode, max_batch=MAX_BATCH, name="sherpa-streaming"
        )

    @property
    def open_streams(self) -> int:
        """Streams that are being recognised."""
        return len(self._streams)

    async def start(self) -> None:
        """Load the model. Raises `ProviderError` (BROKEN) when it cannot be used."""
        async with self._loading:
            if self._recognizer is None:
                if self._trial:
                    await try_plan(self._plan)
                await self.batching.run_on_thread(self._load)

    async def aclose(self) -> None:
        """Release the model; open streams fail."""
        await self.batching.aclose()
        for stream in self._streams:
            stream.fail(closed())
        self._recognizer = None

    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncGenerator[Transcript, None]:
        """Recognise one stream.

        Raises `ProviderError`: RATE_LIMIT when no slot is free in time, CONNECTIVITY
        when the batch that it shared with others failed (the same audio may succeed on
        a new stream) or after `aclose`, BROKEN when decoding itself fails. Exceptions
        of ``audio`` are passed on. Cancelling drops the stream; a batch that contains
        it continues.
        """
        async with self._seats.taken():
            await self.start()
            stream = _StreamDecoding(self.batching)
            self._streams.add(stream)
            # A TaskGroup may not be held over a yield (PEP 789); this task ends with
            # the generator, below.
            feeding = asyncio.get_running_loop().create_task(stream.feed(audio, self._tail))
            try:
                while (transcript := await stream.next_result()) is not None:
                    yield transcript
                await feeding
            finally:
                stream.close()
                self._streams.discard(stream)
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)

    def _load(self) -> None:
        self._recognizer, self._punctuate = load_recognizer(self._plan, self._open_punctuate)

    def _decode(self, streams: Sequence["_StreamDecoding"]) -> None:
        """Compute the next step of each stream, on the thread."""
        steps = [stream for stream in streams if stream.accept(self._recognizer)]
        if steps:
            self._recognizer.decode_streams([stream.native for stream in steps])
        for stream in steps:
            stream.look(self._recognizer, self._punctuate)
        for stream in streams:
            stream.look_ahead(self._recognizer, self._punctuate)


class _StreamDecoding:
    """One stream. Attributes that the thread changes (between ``accept`` and
    ``look_ahead``) are read-only for the event loop.
    """

    def __init__(self, batching: BatchScheduler["_StreamDecoding"]) -> None:
        self._batching = batching
        self.native: Any = None
        self._pending: deque[bytes] = deque()
        self._cut_piece = b""
        self._room = asyncio.Event()
        self._audio_ms: int | None = None  # known once the audio has ended
        self._ended = self._flushed = self._more = self._done = False
        self._over = self._closed = False
        self._heard_bytes = 0
        self._sentence_from_ms = 0
        self._shown: Transcript | None = None
        self._found: list[Transcript] = []
        self._results: deque[Transcript] = deque()
        self._error: BaseException | None = None
        self._result_event = asyncio.Event()

    # --- on the event loop ------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether a step can be computed, as `BatchJob.ready`."""
        work = bool(self._pending) or self._more or self._ended
        return work and not (self._done or self._closed) and len(self._results) < MAX_RESULTS

    @property
    def urgent(self) -> bool:
        """Whether the audio has ended, as `BatchJob.urgent`."""
        return self._ended

    async def feed(self, audio: AsyncIterator[bytes], tail: bytes) -> None:
        """Read the audio to its end, no faster than it is decoded. Its exceptions are
        raised by ``next_result``.
        """
        fed_bytes = 0
        try:
            async for pcm in audio:
                fed_bytes += len(pcm)
                await self._push(pcm)
        except BaseException as error:
            self._end(error)
            raise
        self._audio_ms = fed_bytes // _BYTES_PER_MS
        await self._push(tail)
        # An odd number of bytes would spoil the batch for the other streams.
        self._pending.append(self._cut_piece[: len(self._cut_piece) // 2 * 2])
        self._ended = True
        self._batching.wake_job(self)

    async def _push(self, pcm: bytes) -> None:
        audio = self._cut_piece + pcm
        whole_bytes = len(audio) - len(audio) % PIECE_BYTES
        self._cut_piece = audio[whole_bytes:]
        for start in range(0, whole_bytes, PIECE_BYTES):
            while len(self._pending) * PIECE_BYTES >= WINDOW_BYTES:
                self._room.clear()
                await self._room.wait()
            self._pending.append(audio[start : start + PIECE_BYTES])
            self._batching.wake_job(self)

    async def next_result(self) -> Transcript | None:
        """Return the next transcript, or None at the end; raises its failure."""
        while not self._results:
            if self._error is not None:
                raise self._error
            if self._over:
                return None
            self._result_event.clear()
            await self._result_event.wait()
        result = self._results.popleft()
        self._batching.wake_job(self)
        return result

    def deliver(self) -> None:
        """Pass new results to the reader, as `BatchJob.deliver`."""
        self._results += self._found
        self._found.clear()
        self._over = self._done
        self._room.set()
        self._result_event.set()

    def fail(self, error: ProviderError) -> None:
        """End the stream with the error, as `BatchJob.fail`."""
        self._end(error)

    def close(self) -> None:
        """Drop the stream, because its reader has left."""
        self._closed = True
        self._pending.clear()
        self._batching.forget_job(self)

    def _end(self, error: BaseException) -> None:
        self._error = self._error or error
        self.close()
        self._result_event.set()

    # --- on the thread ----------------------------------------------------------------

    def accept(self, recognizer: Any) -> bool:
        """Pass audio to the model, at most one step of it. Returns True if a step can
        be computed.
        """
        if self.native is None:
            self.native = recognizer.create_stream()
        while not recognizer.is_ready(self.native):
            ended = self._ended  # read before the audio, which precedes the end
            try:
                piece = self._pending.popleft()
            except IndexError:
                if self._flushed or not ended:
                    return False
                self._flushed = True
                self.native.input_finished()
                continue
            self.native.accept_waveform(PCM_RATE_HZ, samples_of(piece))
            self._heard_bytes += len(piece)
        return True

    def look(self, recognizer: Any, punctuate: Punctuate) -> None:
        """Read the result of the step; close the sentence at an endpoint."""
        result = recognizer.get_result_all(self.native)
        if result.text.strip() and (self._shown is None or result.text.strip() != self._shown.text):
            self._shown = self._transcript(result, result.text.strip())
            self._found.append(self._shown)
        if recognizer.is_endpoint(self.native):
            self._close_sentence(recognizer, punctuate)
            recognizer.reset(self.native)
            self._sentence_from_ms = self._heard_ms

    def look_ahead(self, recognizer: Any, punctuate: Punctuate) -> None:
        """Check whether another step can be computed. If the audio has ended, close the
        last sentence.
        """
        self._more = recognizer.is_ready(self.native)
        if self._flushed and not self._more:
            self._close_sentence(recognizer, punctuate)
            self._done = True

    @property
    def _heard_ms(self) -> int:
        heard_ms = self._heard_bytes // _BYTES_PER_MS
        return heard_ms if self._audio_ms is None else min(heard_ms, self._audio_ms)

    def _close_sentence(self, recognizer: Any, punctuate: Punctuate) -> None:
        # A sentence that was shown is closed even if nothing is left of it.
        result = recognizer.get_result_all(self.native)
        text = result.text.strip()
        best = self._transcript(result, punctuate(text)) if text else self._shown
        self._shown = None
        if best is not None:
            words = tuple(replace(word, fixed=True) for word in best.words)
            end_ms = words[-1].end_ms if words else self._heard_ms
            self._found.append(replace(best, words=words, end_ms=end_ms))

    def _transcript(self, result: Any, text: str) -> Transcript:
        # Models without times do not report where the sentence begins, either.
        from_ms = round(result.start_time * 1000) or self._sentence_from_ms
        recognised = DecodedWords(text, result.tokens, result.timestamps)
        words = tuple(
            replace(word, begin_ms=word.begin_ms + from_ms, end_ms=word.end_ms + from_ms)
            for word in words_of(recognised, max(self._heard_ms - from_ms, 0))
        )
        return Transcript(text, words[0].begin_ms if words else from_ms, None, words)
