"""A session's audio input: where a client's frames are decoded, placed in time, listened to and recognised.

The session says where audio goes (``RouteAudio``) when that changes, and is told what is heard in it. No frame reaches
it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from voicechat.audio.decode import open_decoder
from voicechat.audio.formats import InputContainer, InputFormat, parse_input_format
from voicechat.errors import RemoteProtocolError
from voicechat.processes.forked import ForkServer
from voicechat.providers.interfaces import PCM_RATE_HZ, SpeechRecognizer
from voicechat.runtime.audio_input.echo_gate import EchoGate
from voicechat.runtime.audio_input.input_decoder import (
    WINDOW_BYTES,
    Destination,
    InPlaceDecoder,
    InputDecoder,
    ProcessDecoder,
    RefusingDecoder,
)
from voicechat.runtime.audio_input.recognition_streams import RecognitionStreams
from voicechat.runtime.audio_input.ring_buffer import RingBuffer
from voicechat.runtime.audio_input.vad_stream import Detector, VadStream
from voicechat.runtime.tasks import SessionTasks
from voicechat.session.effects import OpenRecognition, Route, RouteAudio
from voicechat.session.events import AudioArrived, AudioSent, AudioStarted, Event
from voicechat.session.limits import SessionLimits
from voicechat.session.vocabulary import InputSettings, TurnDetection

_SAMPLE_BYTES = {InputContainer.PCM: 2, InputContainer.MU_LAW: 1, InputContainer.A_LAW: 1}
"""Of input that may be joined; WAV clips and single packets are known by where a frame begins."""


@dataclass(frozen=True, slots=True)
class _Held:
    """What waits for a decoder that can read it. Without a ``frame`` it is the end of a stream."""

    settings: InputSettings
    frame: bytes | None
    destination: Destination


class AudioInput:
    """Owns the decoder, the time line, voice detection, the echo and the recogniser streams of one session."""

    def __init__(
        self,
        recognizer: SpeechRecognizer,
        *,
        limits: SessionLimits,
        now_ms: Callable[[], int],
        post: Callable[[Event], None],
        tasks: SessionTasks,
        decoding: ForkServer | None = None,
        detector: Detector | None = None,
    ) -> None:
        """``now_ms`` is the session's clock, ``post`` lets the session take an event, ``tasks`` owns all tasks.

        Without ``decoding`` compressed audio is refused; without ``detector`` there is no ``LISTEN``.
        """
        self._now_ms = now_ms
        self._post = post
        self._tasks = tasks
        self._decoding = decoding
        self._detector = detector
        self._timeline = RingBuffer()
        self.streams = RecognitionStreams(
            recognizer,
            self._timeline,
            limits=limits,
            post=post,
            tasks=tasks,
            source_rate_hz=lambda: self._decoder.source_rate_hz if self._decoder is not None else None,
        )
        self.echo: EchoGate | None = None
        """Hands-free: takes the far-end audio."""
        self._vad: VadStream | None = None
        self._detection: TurnDetection | None = None
        """What ``_vad`` was made for."""
        self._gap = False
        """Audio has passed that voice detection has not heard."""
        self._destination = Destination(Route.AWAIT)
        self._declared = InputSettings()
        """How the audio is to be read that comes now."""
        self._decoder: InputDecoder | None = None
        self._decodes: InputSettings | None = None
        """What ``_decoder`` was made for."""
        self._retiring = False
        """It still has work to do, and then another takes its place."""
        self._held: list[_Held] = []
        """What came meanwhile."""
        self._held_bytes = 0
        self._bytes_per_s = 0
        """Of the client's audio; 0 where its frames may not be joined."""
        self._gathered = b""
        """Audio that is too short to hear anything new in it."""
        self._wanted_bytes = 0
        """How much of it is enough."""
        self._arrived_ms = 0
        """When the newest audio came."""
        self._untold = False
        """Audio has come that the session does not know of."""
        self._drained = asyncio.Event()
        self._drained.set()
        """Cleared while too much is held."""

    # --- what the session says ---------------------------------------------------------------------------------

    def route(self, effect: RouteAudio) -> None:
        """Let audio go elsewhere from now on; what came before still goes where it was to go."""
        self.flush()
        if effect.route not in (Route.AWAIT, Route.DROP):
            self._declared = effect.settings
            self._fit_decoder(effect.settings)
        self._destination = Destination(effect.route, effect.stream)
        if effect.detection is not None:
            self._listen(effect.detection)
        elif self._vad is not None:
            self._vad.stop()
        self._count_wanted()

    def open(self, effect: OpenRecognition) -> None:
        """Start a recogniser stream; see ``RecognitionStreams.open``."""
        self.streams.open(effect)

    def finish(self, number: int) -> None:
        """No more audio is for stream ``number``: its recogniser is to give its last result."""
        self.flush()
        at_once = self.streams.ends_at_once(number)
        if at_once is None:
            return
        destination = Destination(Route.RECOGNISE, number)
        if at_once or self._decoder is None:
            self.streams.end(number)
        else:
            self._give(_Held(self._declared, None, destination))

    # --- what the client says ----------------------------------------------------------------------------------

    def push(self, frame: bytes) -> None:
        """Take the client's next frame. Never waits."""
        self._arrived_ms = self._now_ms()
        if self._destination.route is Route.AWAIT:
            self._post(AudioStarted())
            self._count_wanted()
        else:
            self._untold = True
        if len(self._gathered) + len(frame) < self._wanted_bytes:
            self._gathered += frame
            return
        if self._gathered:
            frame, self._gathered = self._gathered + frame, b""
        self._decode(frame)
        if self._vad is not None:
            self._count_wanted()

    def flush(self) -> None:
        """Let the audio that was gathered go its way."""
        if self._gathered:
            frame, self._gathered = self._gathered, b""
            self._decode(frame)
            self._count_wanted()

    def report(self) -> None:
        """Let the session know that audio has come, before anything else happens that the client does."""
        self.flush()
        if self._untold:
            self._untold = False
            self._post(AudioArrived(self._arrived_ms))

    @property
    def has_room(self) -> bool:
        """Whether ``room`` would not wait."""
        if self.streams.full or not self._drained.is_set():
            return False
        return self._decoder is None or self._decoder.has_room

    async def room(self) -> None:
        """Wait until the decoder and the recognisers have taken most of what was received."""
        await self.streams.room.wait()
        await self._drained.wait()
        if self._decoder is not None:
            await self._decoder.room()

    def close(self) -> None:
        """Nothing is heard any more."""
        if self._vad is not None:
            self._vad.close()

    def release(self) -> None:
        """Let go of the parts, which refer to this object. To be called when the session's tasks have ended."""
        self._decoder = self._vad = self.echo = None
        del self.streams

    # --- the far end -------------------------------------------------------------------------------------------

    def reply_sent(self, event: AudioSent) -> None:
        """Speech of a reply was handed to the socket."""
        if self.echo is not None:
            self.echo.reply_sent(event.reply, event.end_ms)
        if self._vad is not None:
            self._vad.replied()

    def reply_stopped(self) -> None:
        """The reply was cut off."""
        if self.echo is not None:
            self.echo.reply_stopped()

    # --- what was decoded: see ``Sink`` ------------------------------------------------------------------------

    def decoded(self, pcm: bytes, destination: Destination) -> None:
        """See ``Sink.decoded``."""
        route = destination.route
        if route is Route.LISTEN:
            if self._gap and self._vad is not None:
                self._gap = False
                self._vad.begin()
            self._timeline.push(pcm)
            if self._vad is not None:
                self._vad.push(pcm, self._arrived_ms)
            for stream in tuple(self.streams.listening):
                self.streams.feed(stream, pcm)
        elif route is Route.RECOGNISE:
            self.streams.push(destination.stream, self._timeline.end_ms, pcm)
            self._timeline.push(pcm)
            self._gap = True
        elif pcm:
            self._timeline.skip(len(pcm))
            self._gap = True

    def ended(self, destination: Destination) -> None:
        """See ``Sink.ended``."""
        self.streams.end(destination.stream)

    def undecodable(self, error: RemoteProtocolError, destination: Destination) -> None:
        """See ``Sink.undecodable``."""
        if destination.route is Route.LISTEN:
            self.streams.fail_listening(error)
        else:
            self.streams.fail(destination.stream, error)

    def drained(self) -> None:
        """See ``Sink.drained``."""
        if not self._retiring:
            return
        self._retiring = False
        held, self._held, self._held_bytes = self._held, [], 0
        self._drained.set()
        for one in held:
            self._fit_decoder(one.settings)
            self._give(one)
        self._fit_decoder(self._declared)

    # --- within ------------------------------------------------------------------------------------------------

    def _decode(self, frame: bytes) -> None:
        if self._retiring:
            self._give(_Held(self._declared, frame, self._destination))
        elif self._decoder is not None and self._destination.route is not Route.DROP:
            self._decoder.feed(frame, self._destination)

    def _give(self, one: "_Held") -> None:
        """Give something to the decoder, or keep it until there is one that can read it."""
        if self._retiring:
            self._held.append(one)
            self._held_bytes += len(one.frame or b"")
            if self._held_bytes >= WINDOW_BYTES:
                self._drained.clear()
        elif self._decoder is not None:
            if one.frame is None:
                self._decoder.finish(one.destination)
            else:
                self._decoder.feed(one.frame, one.destination)

    def _fit_decoder(self, settings: InputSettings) -> None:
        """Have a decoder that reads what ``settings`` say, once the one before has done its work."""
        if self._retiring:
            return
        decodes = self._decodes
        if decodes is not None:
            if (settings.format, settings.sample_rate_hz) == (decodes.format, decodes.sample_rate_hz):
                return
            assert self._decoder is not None
            self._decoder.finish(self._destination, ends=False)
            if not self._decoder.idle:
                self._retiring = True
                return
            self._decoder.close()
        self._decodes = settings
        audio_format = parse_input_format(settings.format, settings.sample_rate_hz)
        self._bytes_per_s = audio_format.rate_hz * _SAMPLE_BYTES.get(audio_format.container, 0)
        self._decoder = self._open_decoder(audio_format)

    def _open_decoder(self, audio_format: InputFormat) -> InputDecoder:
        if not audio_format.container.compressed:
            return InPlaceDecoder(open_decoder(audio_format), self)
        if self._decoding is None:
            return RefusingDecoder(audio_format.container.value, self)
        return ProcessDecoder(
            self._decoding, audio_format.container, self, tasks=self._tasks, ready=self.streams.room.wait
        )

    def _listen(self, detection: TurnDetection) -> None:
        assert self._detector is not None, "without voice detection hands-free mode is refused"
        if detection == self._detection:
            return
        self._detection = detection
        if self._vad is not None:
            self._vad.stop()
            self._vad.close()
        if self.echo is None:
            self.echo = EchoGate(self._now_ms, self._timeline)
        self.echo.configure(detection.min_interruption_ms)
        self._vad = VadStream(
            self._detector,
            detection,
            self._timeline,
            self.echo,
            post=self._post,
            missing_ms=self._missing_ms,
            flush=self.flush,
        )

    def _missing_ms(self) -> int:
        """For how long no audio has come, although it was waited for and all that came was decoded."""
        if not self.has_room or (self._decoder is not None and not self._decoder.idle):
            return 0
        return self._now_ms() - self._arrived_ms

    def _count_wanted(self) -> None:
        """Say how much audio completes what voice detection judges at once; 0: any audio counts."""
        if self._vad is None or self._destination.route is not Route.LISTEN:
            self._wanted_bytes = 0
        else:
            self._wanted_bytes = self._vad.wanted_bytes * self._bytes_per_s // (PCM_RATE_HZ * 2)
