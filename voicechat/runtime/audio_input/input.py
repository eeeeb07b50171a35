"""A session's audio input: decodes a client's frames, places them in time, and passes
them to voice detection and recognisers.

The session sets the route of the audio (``RouteAudio``) and receives events about what
was heard. It never receives a frame.
"""

import asyncio
import math
from collections.abc import Callable

from voicechat.errors import RemoteProtocolError
from voicechat.processes.forked import ForkServer
from voicechat.providers.interfaces import SpeechRecognizer
from voicechat.runtime.audio_input.decoder_switch import DecoderSwitch
from voicechat.runtime.audio_input.echo_gate import EchoGate
from voicechat.runtime.audio_input.input_decoder import Destination
from voicechat.runtime.audio_input.recognition_streams import RecognitionStreams
from voicechat.runtime.audio_input.ring_buffer import BYTES_PER_MS, RingBuffer
from voicechat.runtime.audio_input.vad_stream import Detector, VadStream
from voicechat.runtime.recording import SessionRecorder
from voicechat.runtime.tasks import SessionTasks
from voicechat.session.effects import OpenRecognition, Route, RouteAudio
from voicechat.session.events import AudioArrived, AudioSent, AudioStarted, Event
from voicechat.session.limits import SessionLimits
from voicechat.session.types import TurnDetection


class AudioInput:
    """Owns the decoder, the time line, voice detection, the echo and the recogniser
    streams of one session.
    """

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
        replying: Callable[[], bool] = lambda: False,
    ) -> None:
        """``now_ms`` is the session's clock, ``post`` passes an event to the session,
        ``tasks`` owns all tasks.

        Without ``decoding`` compressed audio is refused; without ``detector`` there is
        no ``LISTEN``. ``replying`` returns whether a reply is being made.
        """
        self._now_ms = now_ms
        self._post = post
        self._detector = detector
        self._replying = replying
        self.recording: SessionRecorder | None = None
        """Gets all decoded audio; None: nothing does."""
        self._timeline = RingBuffer()
        self.streams = RecognitionStreams(
            recognizer,
            self._timeline,
            limits=limits,
            post=post,
            tasks=tasks,
            settle_room=self.settle_room,
            source_rate_hz=lambda: self._decoding.source_rate_hz,
        )
        self._decoding = DecoderSwitch(
            self, tasks=tasks, decoding=decoding, ready=self.streams.room.wait
        )
        self.echo: EchoGate | None = None
        """Hands-free: the echo gate, which also receives the far-end audio."""
        self._vad: VadStream | None = None
        self._detection: TurnDetection | None = None
        """The settings of ``_vad``."""
        self._gathered: list[bytes] = []
        """Frames of samples that wait until voice detection has a use for them: each
        step on their way costs as much for 20 ms as for 60.
        """
        self._gathered_bytes = 0
        self._gather_bytes = 0
        """How much is gathered; 0: each frame is decoded as it arrives."""
        self._gap = False
        """Whether audio has passed that voice detection did not hear."""
        self._destination = Destination(Route.AWAIT)
        self._loop = asyncio.get_running_loop()
        self._arrived_s = 0.0
        """Loop time at which the newest audio arrived."""
        self._untold = False
        """Whether audio has arrived that was not reported to the session."""
        self.full = False
        """Whether the audio waiting to be decoded, recognised or judged has reached a
        bound, so that no more should be pushed.
        """
        self._room = asyncio.Event()
        """Set while it is not ``full``."""
        self._room.set()

    # --- effects of the session -------------------------------------------------------

    def route(self, effect: RouteAudio) -> None:
        """Change the route of later audio. Earlier audio keeps its route."""
        self.take_gathered()
        if effect.route not in (Route.AWAIT, Route.DROP):
            self._decoding.configure(effect.settings, self._destination)
        self._destination = Destination(effect.route, effect.stream)
        if effect.detection is not None:
            self._listen(effect.detection)
        elif self._vad is not None:
            self._vad.stop()
        self.settle_gathering()

    def open(self, effect: OpenRecognition) -> None:
        """Start a recogniser stream; see ``RecognitionStreams.open``."""
        self.take_gathered()
        self.streams.open(effect)

    def finish(self, number: int) -> None:
        """End the audio of stream ``number``; its recogniser then gives its last
        result.
        """
        self.take_gathered()
        at_once = self.streams.ends_at_once(number)
        if at_once is None:
            return
        if at_once:
            self.streams.end(number)
            if self._vad is not None and not self.streams.listening:
                self._vad.end_turn()
        else:
            self._decoding.finish(Destination(Route.RECOGNISE, number))

    # --- the client's audio -----------------------------------------------------------

    def push(self, frame: bytes) -> None:
        """Take the client's next frame. Never waits, even while ``full``."""
        self._arrived_s = self._loop.time()
        if self._gather_bytes:
            self._untold = True
            self._gathered.append(frame)
            self._gathered_bytes += len(frame)
            if self._gathered_bytes >= self._gather_bytes:
                self.take_gathered()
            return
        route = self._destination.route
        if route is Route.AWAIT:
            self._post(AudioStarted())
        elif route is Route.DROP:
            return
        else:
            self._untold = True
        self._decoding.feed(frame, self._destination)
        if route is Route.LISTEN:
            self.settle_gathering()

    def report(self) -> None:
        """Report to the session that audio has arrived. Call this before passing on the
        client's next request.
        """
        arrived_ms = self.take_arrival_ms()
        if arrived_ms is not None:
            self._post(AudioArrived(arrived_ms))

    def take_arrival_ms(self) -> int | None:
        """Return when the newest audio arrived (session time), or None if that was
        already reported. The caller must report it.
        """
        if not self._untold:
            return None
        self._untold = False
        return self._now_ms() - self._since_arrival_ms

    async def room(self) -> None:
        """Wait until the decoder, the recognisers and voice detection have processed
        most of the received audio.
        """
        await self._room.wait()

    def settle_room(self) -> None:
        """Update ``full`` after the amount of waiting audio has changed. See
        ``Sink.settle_room``.
        """
        self.full = (
            self.streams.full
            or not self._decoding.has_room
            or (self._vad is not None and self._vad.full)
        )
        if self.full:
            self._room.clear()
        else:
            self._room.set()

    @property
    def silent(self) -> bool:
        """Whether only voice detection listens, it has heard no speech lately, and no
        reply is being made.
        """
        return (
            self._destination.route is Route.LISTEN
            and self._vad is not None
            and self._vad.silent
            and not self.streams.listening
            and not self._replying()
        )

    @property
    def answered(self) -> bool:
        """Whether only voice detection listens: the user's turn is not open, so only an
        interruption can be heard.
        """
        return self._destination.route is Route.LISTEN and not self.streams.listening

    def note_unread(self) -> None:
        """Take into account that the event loop is late, so that audio the client has
        sent may not have been read.

        Call this before anything that may end a turn. Does nothing while no turn is
        open.
        """
        if self._vad is not None and self.streams.listening:
            self.take_gathered()
            self._vad.note_unread()

    def close(self) -> None:
        """Stop listening."""
        self._gathered.clear()
        self._gathered_bytes = 0
        if self._vad is not None:
            self._vad.close()

    def release(self) -> None:
        """Drop the references to the parts, which refer to this object. Call this after
        the session's tasks have ended.
        """
        self._vad = self.echo = None
        self._decoding.release()
        del self.streams, self._decoding, self._replying

    # --- the far end ------------------------------------------------------------------

    def reply_sent(self, event: AudioSent) -> None:
        """Note that speech of a reply was handed to the socket."""
        if self.echo is not None:
            self.echo.reply_sent(event.reply, event.end_ms)
        if self._vad is not None:
            self._vad.replied()

    def reply_stopped(self) -> None:
        """Note that the reply was cut off."""
        if self.echo is not None:
            self.echo.reply_stopped()

    # --- decoded audio: see ``Sink`` --------------------------------------------------

    def decoded(self, pcm: bytes, destination: Destination) -> None:
        """See ``Sink.decoded``."""
        route = destination.route
        if self.recording is not None and pcm:
            self.recording.heard(pcm, self._now_ms())
        if route is Route.LISTEN:
            if self._gap and self._vad is not None:
                self._gap = False
                self._vad.begin()
            self._timeline.push(pcm)
            if self._vad is not None:
                self._vad.push(pcm)
            if self.streams.listening:
                self.streams.push_listening(pcm)
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
        self._decoding.drained()

    # --- audio that waits: see ``AudioSource`` ----------------------------------------

    def missing_ms(self) -> int:
        """Return how far the time line lags behind the client's time: the length of the
        gathered audio, and the time since the newest audio arrived. 0 while received
        audio still waits to be decoded.
        """
        if self.full or not self._decoding.idle:
            return 0
        missing_ms = self._since_arrival_ms
        if self._gathered:
            missing_ms += round(self._gathered_bytes / self._decoding.bytes_per_ms)
        return missing_ms

    def take_gathered(self) -> None:
        """Decode the gathered frames."""
        if not self._gathered:
            return
        samples = self._gathered[0] if len(self._gathered) == 1 else b"".join(self._gathered)
        self._gathered.clear()
        self._gathered_bytes = 0
        self._decoding.feed(samples, self._destination)
        self.settle_gathering()

    def settle_gathering(self) -> None:
        """Set how much audio is gathered: as much as voice detection needs for the next
        decision, if the audio is samples, whose frames may be joined.
        """
        self._gather_bytes = 0
        if self._vad is not None and self._destination.route is Route.LISTEN:
            wanted_ms = self._vad.wanted_bytes / BYTES_PER_MS
            self._gather_bytes = math.ceil(wanted_ms * self._decoding.bytes_per_ms)
        if self._gathered_bytes >= self._gather_bytes:
            self.take_gathered()

    # --- internals --------------------------------------------------------------------

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
            now_ms=self._now_ms,
            source=self,
        )
        self.settle_room()

    @property
    def _since_arrival_ms(self) -> int:
        """Milliseconds since the newest audio arrived."""
        return round((self._loop.time() - self._arrived_s) * 1000)
