"""Audio in: frames are decoded on one time line and handed to the recogniser of the stream they belong to."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from voicechat.audio.decode import open_decoder
from voicechat.audio.formats import InputContainer, InputFormat, parse_input_format
from voicechat.errors import BrokenOffError, FailureKind, ProviderError, RemoteProtocolError, Status
from voicechat.processes.forked import ForkServer
from voicechat.providers.interfaces import PCM_RATE_HZ, RecognitionOptions, SpeechRecognizer
from voicechat.runtime.edge import closing, next_item
from voicechat.runtime.intake import InPlaceIntake, Intake, ProcessIntake, RefusingIntake
from voicechat.runtime.stream import BYTES_PER_MS, Stream
from voicechat.runtime.tasks import SessionTasks
from voicechat.runtime.watch import Watch
from voicechat.session.effects import Listen, OpenRecognition
from voicechat.session.events import Event, RecognitionEnded, RecognitionFailed, Transcribed
from voicechat.session.limits import SessionLimits
from voicechat.session.vocabulary import InputSettings, Transcript, TurnDetection, Word

_SAMPLE_BYTES = {InputContainer.PCM: 2, InputContainer.MU_LAW: 1, InputContainer.A_LAW: 1}
"""Of input that may be joined; WAV clips and single packets are known by where a frame begins."""


class Ears:
    """The recogniser streams of one session, and their common time line."""

    def __init__(
        self,
        recognizer: SpeechRecognizer,
        *,
        limits: SessionLimits,
        post: Callable[[Event], None],
        tasks: SessionTasks,
        decoding: ForkServer | None = None,
        watcher: Callable[[TurnDetection], Watch] | None = None,
    ) -> None:
        """``tasks`` owns the streams' tasks. Without ``decoding`` compressed audio is refused.

        ``watcher`` makes the watch of a hands-free session; without it none can be held.
        """
        self._recognizer = recognizer
        self._limits = limits
        self._post = post
        self._tasks = tasks
        self._decoding = decoding
        self._watcher = watcher
        self._watch: Watch | None = None
        self._following: dict[int, Stream] = {}
        """Hands-free: streams that hear what the watch hears."""
        self._streams: dict[int, Stream] = {}
        self._intake: Intake | None = None
        self._seats: dict[int, _Seat] = {}
        self._nobody = _Seat(self, None)
        self._microphone = _Microphone(self)
        self._input_bytes_per_s = 0
        """Of the client's audio; 0 where its frames may not be joined."""
        self._received_bytes = 0
        self._unread_bytes = 0
        self._most_unread_bytes = limits.unread_audio_ms * BYTES_PER_MS
        self._room = asyncio.Event()
        self._room.set()

    def open(self, effect: OpenRecognition) -> None:
        """Start a stream; a replacement begins with what its predecessor heard since its last final result."""
        options = RecognitionOptions(source_rate_hz=effect.settings.sample_rate_hz)
        stream = Stream(effect.stream, options, self._unread)
        seat = _Seat(self, stream)
        old = self._streams.get(effect.replay_of) if effect.replay_of is not None else None
        if old is not None:
            stream.options = replace(options, earlier_failures=old.options.earlier_failures + 1)
            if old.offset_ms is not None:
                stream.offset_ms = old.offset_ms + old.kept_from_ms
            stream.ending, stream.finished = old.ending, old.finished
            for pcm in old.kept:
                stream.give(pcm)
            # What is being decoded for the old one is meant for the new one.
            seat = self._seats.pop(old.number)
            if old.number in self._following:
                self._following[stream.number] = stream
            self.drop(old.number)
            seat.stream = stream
        elif effect.from_ms is not None and self._watch is not None:
            stream.offset_ms, pcm = self._watch.since(effect.from_ms)
            stream.give(pcm)
            self._following[stream.number] = stream
        self._streams[stream.number] = stream
        self._seats[stream.number] = seat
        stream.task = self._tasks.spawn(self._listen(stream), f"stream-{stream.number}")

    def feed(self, number: int, payload: bytes, settings: InputSettings) -> None:
        """Decode a frame and hand it on. Audio that cannot be decoded fails the stream."""
        seat = self._seats.get(number)
        if seat is not None:
            self._opened_intake(settings).feed(payload, seat)

    def listen(self, effect: Listen) -> None:
        """Hands-free: watch a frame for speech; streams that were opened at a time of the audio hear it too."""
        if self._watch is None:
            assert self._watcher is not None, "without voice detection hands-free mode is refused"
            self._watch = self._watcher(effect.detection)
            self._watch.begin_at(self._received_bytes // BYTES_PER_MS)
        intake = self._intake if self._intake is not None else self._opened_intake(effect.settings)
        intake.feed(effect.payload, self._microphone)

    @property
    def watch(self) -> Watch | None:
        """The watch of a hands-free session that has begun."""
        return self._watch

    @property
    def wanted_bytes(self) -> int:
        """Hands-free: how much more of the client's audio is needed to hear anything new in it. 0: any audio counts."""
        if self._watch is None:
            return 0
        return self._watch.wanted_bytes * self._input_bytes_per_s // (PCM_RATE_HZ * 2)

    def close(self) -> None:
        """Nothing is heard any more."""
        if self._watch is not None:
            self._watch.close()

    def skip(self, payload: bytes, settings: InputSettings) -> None:
        """Let a frame that is not recognised take its time on the time line, and its effect on the decoder."""
        self._opened_intake(settings).feed(payload, self._nobody)

    def finish(self, number: int) -> None:
        """No more audio for the stream: its recogniser is to give its last result."""
        stream = self._streams.get(number)
        if stream is None or stream.ending:
            return
        stream.ending = True
        if self._following.pop(number, None) is not None:
            stream.end()
        elif self._intake is not None:
            self._intake.finish(self._seats[number])
        else:
            stream.end()

    def drop(self, number: int) -> None:
        """Cancel the stream and forget its audio."""
        stream = self._streams.pop(number, None)
        if stream is None:
            return
        self._following.pop(number, None)
        self._vacate(number)
        if stream.task is not None:
            stream.task.cancel()
        stream.clear()

    @property
    def has_room(self) -> bool:
        """Whether ``room`` would not wait."""
        return self._room.is_set() and (self._intake is None or self._intake.has_room)

    async def room(self) -> None:
        """Wait until the decoder and the recognisers have taken most of what was received."""
        await self._room.wait()
        if self._intake is not None:
            await self._intake.room()

    # --- what was decoded --------------------------------------------------------------------------------------

    def take(self, stream: Stream | None, pcm: bytes) -> None:
        """Audio for ``stream``; for None it only takes its time."""
        position_ms = self._received_bytes // BYTES_PER_MS
        self._received_bytes += len(pcm)
        if stream is None or not pcm:
            return
        if stream.offset_ms is None:
            stream.offset_ms = position_ms
        self._hear(stream, pcm)

    def overhear(self, pcm: bytes) -> None:
        """Audio of a hands-free session: for the watch, and for the streams that follow it."""
        self._received_bytes += len(pcm)
        if self._watch is not None:
            self._watch.take(pcm)
        if self._following:
            for stream in list(self._following.values()):
                self._hear(stream, pcm)

    def undecodable(self, error: RemoteProtocolError) -> None:
        """Audio of a hands-free session cannot be decoded: the streams that follow it fail."""
        for stream in list(self._following.values()):
            self.fail(stream, error)

    def _hear(self, stream: Stream, pcm: bytes) -> None:
        stream.give(pcm)
        spoken_from_ms = stream.spoken_from_ms
        if spoken_from_ms is not None and stream.fed_ms - spoken_from_ms > self._limits.turn_audio_ms:
            minutes = self._limits.turn_audio_ms // 60_000
            message = f"the audio of one turn is longer than {minutes} minutes"
            self.fail(stream, RemoteProtocolError(Status.TOO_LARGE, message))

    def fail(self, stream: Stream, error: RemoteProtocolError) -> None:
        """The audio of ``stream`` cannot be used."""
        self.drop(stream.number)
        self._post(RecognitionFailed(stream.number, error.status, error.message))

    def _opened_intake(self, settings: InputSettings) -> Intake:
        if self._intake is None:
            audio_format = parse_input_format(settings.format, settings.sample_rate_hz)
            self._input_bytes_per_s = audio_format.rate_hz * _SAMPLE_BYTES.get(audio_format.container, 0)
            self._intake = self._open_intake(audio_format)
        return self._intake

    def _open_intake(self, audio_format: InputFormat) -> Intake:
        if not audio_format.container.compressed:
            return InPlaceIntake(open_decoder(audio_format))
        if self._decoding is None:
            return RefusingIntake(audio_format.container.value)
        return ProcessIntake(self._decoding, audio_format.container, tasks=self._tasks, ready=self._room.wait)

    def _vacate(self, number: int) -> None:
        seat = self._seats.pop(number, None)
        if seat is not None:
            seat.stream = None

    # --- one stream --------------------------------------------------------------------------------------------

    async def _listen(self, stream: Stream) -> None:
        try:
            await stream.begun()
            source_rate_hz = self._intake.source_rate_hz if self._intake is not None else None
            if source_rate_hz is not None:  # what the audio says of itself goes before what was declared
                stream.options = replace(stream.options, source_rate_hz=source_rate_hz)
            results = self._recognizer.recognize(stream, stream.options)
            async with closing(results):
                while (transcript := await next_item(results)) is not None:
                    self._note(stream, transcript)
                    self._post(Transcribed(stream.number, shifted(transcript, stream.offset_ms or 0)))
        except ProviderError as failure:
            message = f"speech recognition failed: {failure.kind.value}"
            others_left = isinstance(failure, BrokenOffError)
            self._post(RecognitionFailed(stream.number, Status.ASR_FAILED, message, failure.retryable, others_left))
            return
        if not stream.finished:
            message = "speech recognition failed: the recogniser stopped"
            retryable = FailureKind.CONNECTIVITY.retryable
            self._post(RecognitionFailed(stream.number, Status.ASR_FAILED, message, retryable))
            return
        self._streams.pop(stream.number, None)
        self._vacate(stream.number)
        self._post(RecognitionEnded(stream.number))

    def _note(self, stream: Stream, transcript: Transcript) -> None:
        """Forget audio that will not be needed again; mark the first word."""
        if transcript.text.strip() and stream.spoken_from_ms is None:
            stream.spoken_from_ms = transcript.begin_ms
        if transcript.end_ms is not None:
            stream.forget_before(transcript.end_ms)

    def _unread(self, change_bytes: int) -> None:
        self._unread_bytes += change_bytes
        if self._unread_bytes < self._most_unread_bytes:
            self._room.set()
        else:
            self._room.clear()


class _Seat:
    """Whoever is to hear what is being decoded: a stream, the one that replaced it, or nobody any more."""

    def __init__(self, ears: Ears, stream: Stream | None) -> None:
        self._ears = ears
        self.stream = stream

    def take(self, pcm: bytes) -> None:
        """See ``Sink.take``."""
        self._ears.take(self.stream, pcm)

    def end(self) -> None:
        """See ``Sink.end``."""
        if self.stream is not None:
            self.stream.end()

    def fail(self, error: RemoteProtocolError) -> None:
        """See ``Sink.fail``."""
        if self.stream is not None:
            self._ears.fail(self.stream, error)


class _Microphone:
    """Hands-free: everybody who listens."""

    def __init__(self, ears: Ears) -> None:
        self._ears = ears

    def take(self, pcm: bytes) -> None:
        """See ``Sink.take``."""
        self._ears.overhear(pcm)

    def end(self) -> None:
        """See ``Sink.end``: a microphone does not end."""

    def fail(self, error: RemoteProtocolError) -> None:
        """See ``Sink.fail``."""
        self._ears.undecodable(error)


def shifted(heard: Transcript, by_ms: int) -> Transcript:
    """Move stream time to the connection's time line."""
    if by_ms == 0:
        return heard
    words = tuple(
        [
            Word(word.text, word.begin_ms + by_ms, word.end_ms + by_ms, word.punctuation, word.fixed)
            for word in heard.words
        ]
    )
    end_ms = None if heard.end_ms is None else heard.end_ms + by_ms
    return Transcript(heard.text, heard.begin_ms + by_ms, end_ms, words)
