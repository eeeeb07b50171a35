"""Audio in: frames are decoded on one time line and handed to the recogniser of the stream they belong to."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

from voicechat.audio.decode import Decoder, open_decoder
from voicechat.audio.formats import parse_input_format
from voicechat.errors import FailureKind, ProviderError, RemoteProtocolError, Status
from voicechat.providers.interfaces import PCM_RATE_HZ, RecognitionOptions, SpeechRecognizer
from voicechat.runtime.edge import closing, next_item
from voicechat.runtime.tasks import SessionTasks
from voicechat.session.effects import OpenRecognition
from voicechat.session.events import Event, RecognitionEnded, RecognitionFailed, Transcribed
from voicechat.session.limits import SessionLimits
from voicechat.session.vocabulary import InputSettings, Transcript

BYTES_PER_MS = PCM_RATE_HZ * 2 // 1000
SILENT_REPLAY_MS = 10_000
"""Of audio in which nothing has been recognised, so much is kept for a recogniser that must start again."""


@dataclass(slots=True)
class _Stream:
    """One recogniser stream: the audio that waits for it, and the audio it may have to hear again."""

    number: int
    offset_ms: int
    """Where its first sample stands on the connection's time line."""
    waiting: deque[bytes] = field(default_factory=deque)
    kept: deque[bytes] = field(default_factory=deque)
    kept_from_ms: int = 0
    """Stream time of the first kept sample."""
    spoken_from_ms: int | None = None
    """Stream time of the first recognised word."""
    fed_bytes: int = 0
    finished: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @property
    def fed_ms(self) -> int:
        return self.fed_bytes // BYTES_PER_MS


class Ears:
    """The recogniser streams of one session, and their common time line."""

    def __init__(
        self,
        recognizer: SpeechRecognizer,
        *,
        limits: SessionLimits,
        post: Callable[[Event], None],
        tasks: SessionTasks,
    ) -> None:
        """``tasks`` owns the streams' tasks."""
        self._recognizer = recognizer
        self._limits = limits
        self._post = post
        self._tasks = tasks
        self._streams: dict[int, _Stream] = {}
        self._decoder: Decoder | None = None
        self._options = RecognitionOptions()
        self._received_bytes = 0
        self._unread_bytes = 0
        self._room = asyncio.Event()
        self._room.set()

    def open(self, effect: OpenRecognition) -> None:
        """Start a stream; a replacement begins with what its predecessor heard since its last final result."""
        stream = _Stream(effect.stream, self._received_bytes // BYTES_PER_MS)
        old = self._streams.get(effect.replay_of) if effect.replay_of is not None else None
        if old is not None:
            stream.offset_ms = old.offset_ms + old.kept_from_ms
            stream.finished = old.finished
            for pcm in old.kept:
                self._give(stream, pcm)
            self.drop(old.number)
        self._streams[stream.number] = stream
        self._options = RecognitionOptions(source_rate_hz=effect.settings.sample_rate_hz)
        stream.task = self._tasks.spawn(self._listen(stream), f"stream-{stream.number}")

    def feed(self, number: int, payload: bytes, settings: InputSettings) -> None:
        """Decode a frame and hand it on. Audio that cannot be decoded fails the stream."""
        stream = self._streams.get(number)
        if stream is None:
            return
        pcm = self._decode(payload, settings, stream)
        self._received_bytes += len(pcm)
        if pcm:
            self._give(stream, pcm)
        since_ms = stream.fed_ms - (stream.spoken_from_ms if stream.spoken_from_ms is not None else stream.fed_ms)
        if since_ms > self._limits.turn_audio_ms:
            minutes = self._limits.turn_audio_ms // 60_000
            self._fail(stream, Status.TOO_LARGE, f"the audio of one turn is longer than {minutes} minutes")

    def skip(self, payload: bytes, settings: InputSettings) -> None:
        """Let a frame that is not recognised take its time on the time line."""
        self._received_bytes += len(payload) // 2 * PCM_RATE_HZ // settings.sample_rate_hz * 2

    def finish(self, number: int) -> None:
        """No more audio for the stream: its recogniser is to give its last result."""
        stream = self._streams.get(number)
        if stream is None:
            return
        if self._decoder is not None and not stream.finished:
            tail = self._decoder.finish()
            if tail:
                self._give(stream, tail)
        stream.finished = True
        stream.wake.set()

    def drop(self, number: int) -> None:
        """Cancel the stream and forget its audio."""
        stream = self._streams.pop(number, None)
        if stream is None:
            return
        if stream.task is not None:
            stream.task.cancel()
        self._unread(-sum(len(pcm) for pcm in stream.waiting))
        stream.waiting.clear()

    async def room(self) -> None:
        """Wait until the recognisers have taken most of what was received."""
        await self._room.wait()

    # --- one stream --------------------------------------------------------------------------------------------

    async def _listen(self, stream: _Stream) -> None:
        try:
            results = self._recognizer.recognize(self._audio(stream), self._options)
            async with closing(results):
                while (transcript := await next_item(results, None, "")) is not None:
                    self._note(stream, transcript)
                    self._post(Transcribed(stream.number, shifted(transcript, stream.offset_ms)))
        except ProviderError as failure:
            message = f"speech recognition failed: {failure.kind.value}"
            self._post(RecognitionFailed(stream.number, Status.ASR_FAILED, message, failure.retryable))
            return
        if not stream.finished:
            message = "speech recognition failed: the recogniser stopped"
            retryable = FailureKind.CONNECTIVITY.retryable
            self._post(RecognitionFailed(stream.number, Status.ASR_FAILED, message, retryable))
            return
        self._streams.pop(stream.number, None)
        self._post(RecognitionEnded(stream.number))

    async def _audio(self, stream: _Stream) -> AsyncIterator[bytes]:
        while True:
            while stream.waiting:
                pcm = stream.waiting.popleft()
                self._unread(-len(pcm))
                yield pcm
            if stream.finished:
                return
            stream.wake.clear()
            await stream.wake.wait()

    def _decode(self, payload: bytes, settings: InputSettings, stream: _Stream) -> bytes:
        if self._decoder is None:
            self._decoder = open_decoder(parse_input_format(settings.format, settings.sample_rate_hz))
        try:
            return self._decoder.decode(payload)
        except RemoteProtocolError as error:
            self._fail(stream, error.status, error.message)
            return b""

    def _give(self, stream: _Stream, pcm: bytes) -> None:
        stream.waiting.append(pcm)
        stream.kept.append(pcm)
        stream.fed_bytes += len(pcm)
        self._unread(len(pcm))
        if stream.spoken_from_ms is None:
            self._forget_before(stream, stream.fed_ms - SILENT_REPLAY_MS)
        stream.wake.set()

    def _note(self, stream: _Stream, transcript: Transcript) -> None:
        """Forget audio that will not be needed again; mark the first word."""
        if transcript.text.strip() and stream.spoken_from_ms is None:
            stream.spoken_from_ms = transcript.begin_ms
        if transcript.end_ms is not None:
            self._forget_before(stream, transcript.end_ms)

    @staticmethod
    def _forget_before(stream: _Stream, time_ms: int) -> None:
        while stream.kept:
            length_ms = len(stream.kept[0]) // BYTES_PER_MS
            if stream.kept_from_ms + length_ms > time_ms:
                return
            stream.kept.popleft()
            stream.kept_from_ms += length_ms

    def _fail(self, stream: _Stream, status: Status, message: str) -> None:
        self.drop(stream.number)
        self._post(RecognitionFailed(stream.number, status, message))

    def _unread(self, change_bytes: int) -> None:
        self._unread_bytes += change_bytes
        if self._unread_bytes < self._limits.unread_audio_ms * BYTES_PER_MS:
            self._room.set()
        else:
            self._room.clear()


def shifted(transcript: Transcript, by_ms: int) -> Transcript:
    """Move stream time to the connection's time line."""
    if by_ms == 0:
        return transcript
    words = tuple(
        replace(word, begin_ms=word.begin_ms + by_ms, end_ms=word.end_ms + by_ms) for word in transcript.words
    )
    end_ms = None if transcript.end_ms is None else transcript.end_ms + by_ms
    return replace(transcript, begin_ms=transcript.begin_ms + by_ms, end_ms=end_ms, words=words)
