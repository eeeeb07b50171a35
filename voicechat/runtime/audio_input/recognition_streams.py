"""The recogniser streams of one session: opened, fed, replaced and ended."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from voicechat.errors import (
    BrokenOffError,
    FailureKind,
    Fault,
    ProviderError,
    RemoteProtocolError,
)
from voicechat.providers.interfaces import RecognitionOptions, SpeechRecognizer
from voicechat.providers.wrapping import as_recognizer
from voicechat.runtime.audio_input.recognition_stream import RecognitionStream
from voicechat.runtime.audio_input.ring_buffer import BYTES_PER_MS, RingBuffer
from voicechat.runtime.provider_deadlines import closing, next_item
from voicechat.runtime.tasks import SessionTasks
from voicechat.session.effects import OpenRecognition
from voicechat.session.events import (
    Event,
    RecognitionDelayed,
    RecognitionEnded,
    RecognitionFailed,
    Transcribed,
)
from voicechat.session.limits import SessionLimits
from voicechat.session.types import Transcript, Word


class RecognitionStreams:
    """Identifies streams by the numbers that the session assigns. Used on the event
    loop only.
    """

    def __init__(
        self,
        recognizer: SpeechRecognizer,
        timeline: RingBuffer,
        *,
        limits: SessionLimits,
        post: Callable[[Event], None],
        tasks: SessionTasks,
        settle_room: Callable[[], None],
        source_rate_hz: Callable[[], int | None],
    ) -> None:
        """``tasks`` owns the streams' tasks; ``post`` receives the recogniser's
        results.

        ``settle_room`` is called at each change of ``full``.

        ``source_rate_hz`` returns the sample rate of the recording in Hz, if the audio
        states it.
        """
        self._recognizer = as_recognizer(recognizer)
        self._timeline = timeline
        self._limits = limits
        self._post = post
        self._tasks = tasks
        self._settle_room = settle_room
        self._source_rate_hz = source_rate_hz
        self._streams: dict[int, RecognitionStream] = {}
        """Streams by number. The number of a replaced stream maps to its replacement,
        which receives audio that is still being decoded for the old one.
        """
        self.listening: list[RecognitionStream] = []
        """Streams that began at a position of the audio and hear the same audio as
        voice detection.
        """
        self._language = ""
        """The language of the newest final result that names one."""
        self._unread_bytes = 0
        self._most_unread_bytes = limits.unread_audio_ms * BYTES_PER_MS
        self.full = False
        """Whether ``unread_audio_ms`` of received audio waits for the recognisers."""
        self.room = asyncio.Event()
        """Set while not ``full``."""
        self.room.set()

    def open(self, effect: OpenRecognition) -> None:
        """Start a stream.

        A replacement begins with the audio that its predecessor heard since its last
        final result. A stream with ``from_ms`` begins with the audio from there on, as
        far as it is kept.
        """
        options = RecognitionOptions(
            source_rate_hz=effect.settings.sample_rate_hz,
            language=self._language,
            hypotheses=True,
        )
        stream = RecognitionStream(effect.stream, options, self._count_unread)
        old = self._streams.get(effect.replay_of) if effect.replay_of is not None else None
        if old is not None:
            stream.options = replace(options, earlier_failures=old.options.earlier_failures + 1)
            if old.offset_ms is not None:
                stream.offset_ms = old.offset_ms + old.kept_from_ms
            stream.ending, stream.finished = old.ending, old.finished
            for pcm in old.kept:
                stream.push(pcm)
            if old in self.listening:
                self.listening.append(stream)
            numbers = [number for number, known in self._streams.items() if known is old]
            self._forget(old)
            self._streams.update(dict.fromkeys(numbers, stream))
        elif effect.from_ms is not None:
            stream.offset_ms, pcm = self._timeline.since(effect.from_ms)
            stream.push(pcm)
            self.listening.append(stream)
        self._streams[stream.number] = stream
        stream.task = self._tasks.spawn(self._recognise(stream), f"stream-{stream.number}")

    def push(self, number: int, position_ms: int, pcm: bytes) -> None:
        """Pass ``pcm``, which begins at ``position_ms`` of the connection's audio, to a
        stream if it exists.
        """
        stream = self._streams.get(number)
        if stream is None or not pcm:
            return
        if stream.offset_ms is None:
            stream.offset_ms = position_ms
        stream.push(pcm)
        if stream.too_long:
            self._fail_too_long(stream)

    def push_listening(self, pcm: bytes) -> None:
        """Pass ``pcm`` to the streams in ``listening``."""
        too_long = None
        for stream in self.listening:
            stream.push(pcm)
            if stream.too_long:
                too_long = stream
        if too_long is not None:
            self._fail_too_long(too_long)

    def ends_at_once(self, number: int) -> bool | None:
        """Note that no further frame is routed to a stream. Returns whether it ends
        now.

        None: it is already ending, or is gone. False: audio is still being decoded for
        it.
        """
        stream = self._streams.get(number)
        if stream is None or stream.ending:
            return None
        stream.ending = True
        if stream not in self.listening:
            return False
        self.listening.remove(stream)
        return True

    def end(self, number: int) -> None:
        """End the audio of a stream; its recogniser then gives its last result."""
        stream = self._streams.get(number)
        if stream is not None:
            stream.end()

    def drop(self, number: int) -> None:
        """Cancel a stream and discard its audio."""
        stream = self._streams.get(number)
        if stream is not None:
            self._forget(stream)

    def fail(self, number: int, error: RemoteProtocolError) -> None:
        """Report that the audio of a stream cannot be decoded."""
        stream = self._streams.get(number)
        if stream is not None:
            self._fail(stream, error)

    def fail_listening(self, error: RemoteProtocolError) -> None:
        """Report that audio for voice detection cannot be decoded."""
        for stream in list(self.listening):
            self._fail(stream, error)

    def _fail_too_long(self, stream: RecognitionStream) -> None:
        minutes = self._limits.turn_audio_ms // 60_000
        message = f"the audio of one turn is longer than {minutes} minutes"
        self._fail(stream, RemoteProtocolError(Fault.TOO_LARGE, message))

    def _fail(self, stream: RecognitionStream, error: RemoteProtocolError) -> None:
        self._forget(stream)
        self._post(RecognitionFailed(stream.number, error.fault, error.message))

    def _forget(self, stream: RecognitionStream) -> None:
        self._let_go(stream)
        if stream.task is not None:
            stream.task.cancel()
        stream.clear()

    def _let_go(self, stream: RecognitionStream) -> None:
        self._streams = {
            number: known for number, known in self._streams.items() if known is not stream
        }
        if stream in self.listening:
            self.listening.remove(stream)

    async def _recognise(self, stream: RecognitionStream) -> None:
        try:
            await stream.begun()
            source_rate_hz = self._source_rate_hz()
            if (
                source_rate_hz is not None
            ):  # the rate stated in the audio takes precedence over the declared one
                stream.options = replace(stream.options, source_rate_hz=source_rate_hz)
            grace_s = self._recognizer.first_use_grace_s
            if grace_s > 0:
                self._post(RecognitionDelayed(stream.number, int(grace_s * 1000)))
            results = self._recognizer.recognize(stream, stream.options)
            async with closing(results):
                while (transcript := await next_item(results)) is not None:
                    self._note(stream, transcript)
                    self._post(
                        Transcribed(stream.number, shifted(transcript, stream.offset_ms or 0))
                    )
        except ProviderError as failure:
            message = f"speech recognition failed: {failure.kind.value}"
            others_left = isinstance(failure, BrokenOffError)
            self._post(
                RecognitionFailed(
                    stream.number, Fault.ASR_FAILED, message, failure.retryable, others_left
                )
            )
            return
        if not stream.finished:
            message = "speech recognition failed: the recogniser stopped"
            retryable = FailureKind.CONNECTIVITY.retryable
            self._post(RecognitionFailed(stream.number, Fault.ASR_FAILED, message, retryable))
            return
        self._let_go(stream)
        self._post(RecognitionEnded(stream.number))

    def _note(self, stream: RecognitionStream, transcript: Transcript) -> None:
        """Discard audio that no replay will need; mark the first word."""
        if transcript.text.strip() and not stream.spoken:
            stream.begin_turn(transcript.begin_ms, self._limits.turn_audio_ms)
        if transcript.end_ms is not None:
            self._language = transcript.language or self._language
            stream.forget_before(transcript.end_ms)

    def _count_unread(self, change_bytes: int) -> None:
        self._unread_bytes += change_bytes
        full = self._unread_bytes >= self._most_unread_bytes
        if full is not self.full:
            self.full = full
            if full:
                self.room.clear()
            else:
                self.room.set()
            self._settle_room()


def shifted(heard: Transcript, by_ms: int) -> Transcript:
    """Shift the transcript's times from the stream to the connection's time line."""
    if by_ms == 0:
        return heard
    words = tuple(
        [
            Word(
                word.text, word.begin_ms + by_ms, word.end_ms + by_ms, word.punctuation, word.fixed
            )
            for word in heard.words
        ]
    )
    end_ms = None if heard.end_ms is None else heard.end_ms + by_ms
    return Transcript(
        heard.text,
        heard.begin_ms + by_ms,
        end_ms,
        words,
        heard.language,
        heard.hypothesis,
        heard.settled,
    )
