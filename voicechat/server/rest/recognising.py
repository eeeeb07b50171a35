"""Recognises a whole recording, one speaker per channel or all together, merged by
time.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from functools import partial

from voicechat.errors import FailureKind, Fault, ProviderError, RemoteProtocolError, Status
from voicechat.providers.interfaces import RecognitionOptions, SpeechRecognizer
from voicechat.runtime.provider_deadlines import closing, next_item
from voicechat.server.rest.failures import service_failed
from voicechat.server.rest.recordings import BYTES_PER_MS, Recording
from voicechat.server.rest.retry import with_retries
from voicechat.session.types import Transcript

PIECE_MS = 200
"""Length of the pieces of audio that a recogniser gets."""
STALL_S = 120.0
"""A recogniser that neither takes audio for 120 s nor ends has failed. Missing results
do not count: silence has none.
"""
RETRY_S = (1.0, 5.0, 25.0)
"""Waits before the retries after a busy recogniser or a lost decoder."""
MAX_SENTENCES = 100_000


@dataclass(frozen=True, slots=True)
class RecordingUtterance:
    """A sentence, and the channel that it was said on."""

    transcript: Transcript
    channel: int

    @property
    def begin_ms(self) -> int:
        """Position at which the sentence begins."""
        return self.transcript.begin_ms

    @property
    def end_ms(self) -> int:
        """Position at which the sentence ends."""
        return (
            self.transcript.end_ms
            if self.transcript.end_ms is not None
            else self.transcript.begin_ms
        )


@dataclass(frozen=True, slots=True)
class RecordingResult:
    """The sentences of a recording, ordered by time, and the recording's length."""

    utterances: tuple[RecordingUtterance, ...]
    length_ms: int


@dataclass(slots=True)
class _Feed:
    """The audio of one speaker (None: of all together) on its way to a recogniser."""

    recording: Recording
    speaker: int | None
    caller: str
    on_progress: Callable[[float], None]
    on_sentence: Callable[[RecordingUtterance], None]
    reported_sentences: int = 0
    heard_bytes: int = 0
    failures: int = 0
    """Number of recognisers that have failed on it."""
    failure: RemoteProtocolError | None = None
    """The error that ended the audio early. The recogniser only sees the end, so that
    its own errors remain distinguishable.
    """
    on_audio_taken: Callable[[], None] = lambda: None

    @property
    def heard_ms(self) -> int:
        return self.heard_bytes // BYTES_PER_MS

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        pcm = self.recording.pcm(self.speaker)
        async with closing(pcm):
            try:
                async for block in pcm:
                    for start in range(0, len(block), PIECE_MS * BYTES_PER_MS):
                        piece = block[start : start + PIECE_MS * BYTES_PER_MS]
                        self._count(len(piece))
                        yield piece
            except RemoteProtocolError as failure:
                self.failure = failure

    def _count(self, size_bytes: int) -> None:
        self.heard_bytes += size_bytes
        if self.recording.length_ms:
            self.on_progress(min(1.0, self.heard_ms / self.recording.length_ms))
        self.on_audio_taken()


async def recognise(
    recording: Recording,
    recognizer: SpeechRecognizer,
    report: Callable[[float], None],
    *,
    caller: str = "",
    together: bool = False,
    on_sentence: Callable[[RecordingUtterance], None] = lambda _: None,
) -> RecordingResult:
    """Recognise every speaker, one after the other, so that a recording takes one slot
    of a recogniser.

    ``caller``: see ``RecognitionOptions``. ``together``: all speakers at once, as one
    text. ``on_sentence`` is called with each sentence when it is final, and only once
    even if recognition is retried.

    Raises ``RemoteProtocolError``: undecodable; ``ServiceFailedError``: the recogniser
    failed in every attempt. Cancelling stops the recogniser. Memory: the text and a
    second of audio.
    """
    utterances: list[RecordingUtterance] = []
    speakers = (None,) if together else recording.speakers
    for number, speaker in enumerate(speakers):

        def on_progress(done: float, number: int = number) -> None:
            report((number + done) / len(speakers))

        feed = _Feed(recording, speaker, caller, on_progress, on_sentence)
        try:
            utterances += await with_retries(partial(_recognise_speaker, feed, recognizer), RETRY_S)
        except ProviderError as error:
            raise service_failed(Fault.ASR_FAILED, error) from error
    utterances.sort(key=lambda utterance: (utterance.begin_ms, utterance.channel))
    return RecordingResult(tuple(utterances), recording.length_ms)


async def _recognise_speaker(feed: _Feed, recognizer: SpeechRecognizer) -> list[RecordingUtterance]:
    loop = asyncio.get_running_loop()
    feed.heard_bytes, feed.failure = 0, None
    try:
        async with asyncio.timeout(STALL_S) as limit:

            def on_audio_taken() -> None:
                if not limit.expired():
                    limit.reschedule(loop.time() + STALL_S)

            feed.on_audio_taken = on_audio_taken
            utterances = await _results(feed, recognizer)
    except TimeoutError:
        feed.failures += 1
        raise ProviderError(
            "recogniser", FailureKind.TIMEOUT, f"took no audio for {STALL_S:g} s"
        ) from None
    except ProviderError:
        feed.failures += 1
        raise
    if feed.failure is not None:
        raise feed.failure
    return utterances


async def _results(feed: _Feed, recognizer: SpeechRecognizer) -> list[RecordingUtterance]:
    utterances: list[RecordingUtterance] = []
    options = RecognitionOptions(
        source_rate_hz=feed.recording.source_rate_hz,
        live=False,
        caller=feed.caller,
        earlier_failures=feed.failures,
    )
    results = recognizer.recognize(feed.pieces(), options)
    async with closing(results):
        while (transcript := await next_item(results)) is not None:
            if transcript.final and transcript.text.strip():
                utterances.append(RecordingUtterance(transcript, feed.speaker or 0))
                if len(utterances) > feed.reported_sentences:
                    feed.reported_sentences = len(utterances)
                    feed.on_sentence(utterances[-1])
            if len(utterances) > MAX_SENTENCES:
                raise RemoteProtocolError(
                    Status.TOO_LARGE, f"the recording has more than {MAX_SENTENCES} sentences"
                )
    return utterances
