"""What a call does on any wire: audio both ways, marks that report what the caller has
heard, and a clear when the caller interrupts.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from typing_extensions import override

from voicechat.dialects.base import Dialect, Frame, Reaction, Tell
from voicechat.dialects.media_streams.wire import (
    KeyPressed,
    MarkReached,
    MediaReceived,
    Said,
    StreamStarted,
    StreamStopped,
    Wire,
)
from voicechat.dialects.telephony import MU_LAW, SilentFailures
from voicechat.errors import RemoteProtocolError
from voicechat.session import commands as cmd
from voicechat.session import notices as nt
from voicechat.session.events import AudioReceived
from voicechat.session.types import Settings

MOST_ERRORS = 100
"""This many malformed messages in a row end the call."""
MOST_MARKS = 1_000
"""The most marks that may wait for their return; older ones are forgotten."""


class MediaStreamCall(Dialect):
    """One call.

    The kernel's clock estimates what the caller has heard, counted from when audio was
    sent. The estimate is right as long as the far end plays what it gets; a returned
    mark corrects it. The caller reached the position p of a mark one way of the network
    before the mark returned, and a clear sent now arrives one way from now: by then the
    caller will have heard p + round trip. A mark before a reply's first audio measures
    the round trip, because nothing is played before it.
    """

    def __init__(
        self,
        wire: Wire,
        settings: Settings,
        call_id: str = "",
        apology: Callable[[int], bytes] | None = None,
    ) -> None:
        """``settings`` are the session's; ``call_id`` replaces the id that the stream
        states; ``apology`` is the connection's.
        """
        self.call_id = call_id
        self._apology = apology
        self._failures = SilentFailures()
        self._line = MU_LAW
        self._wire = wire
        self._settings = settings
        self._started = False
        self._stopped = False
        self._errors_in_a_row = 0
        self._marks: dict[str, tuple[int, int]] = {}
        """Marks that have not returned: the reply and the position in its audio."""
        self._probe = ""
        """The mark that measures the round trip, until it returns."""
        self._probed_ms = 0
        self._round_trip_ms = 0
        self._reply = 0
        """The reply whose audio was sent last."""
        self._end_ms = 0
        self._marked_ms = 0
        self._voided = 0
        """The last reply that was cut; its audio has been cleared."""

    # --- up ---------------------------------------------------------------------------

    @override
    def receive(self, frame: Frame, now_ms: int) -> Iterable[Reaction]:
        if not frame:
            return (cmd.Alive(),)
        try:
            said = self._wire.read(frame)
        except RemoteProtocolError as error:
            self._errors_in_a_row += 1
            if self._errors_in_a_row >= MOST_ERRORS:
                return (cmd.Leave(error.message, cause=error.status),)
            return (cmd.Alive(),)
        self._errors_in_a_row = 0
        return self._react(said, now_ms)

    @override
    def audio_in(self, frame: Frame) -> bytes | None:
        try:
            said = self._wire.read(frame)
        except RemoteProtocolError:
            return None  # `receive` counts it
        if not isinstance(said, MediaReceived):
            return None
        self._errors_in_a_row = 0
        return said.payload or None

    def _react(self, said: Said | None, now_ms: int) -> Iterator[Reaction]:
        match said:
            case MediaReceived(payload) if self.framed_audio and payload:
                yield AudioReceived(payload)  # which is a sign of life by itself
                return
        yield cmd.Alive()
        match said:
            case StreamStarted() if not self._started:
                self._started = self.framed_audio = True
                yield from self._begin(said)
            case KeyPressed(key) if self._started and not self._stopped:
                yield cmd.PressKey(key)
            case MarkReached(name):
                yield from self._reached(name, now_ms)
            case StreamStopped():
                self._stopped, self.framed_audio = True, False
                yield cmd.HangUp()
            case _:
                pass

    def _begin(self, started: StreamStarted) -> Iterator[Reaction]:
        self.call_id = self.call_id or started.call_id
        line, settings = started.line, self._settings
        self._line = line
        if settings.input != line.input:
            voice = replace(settings.voice, format=line.output)
            self._settings = replace(settings, input=line.input, voice=voice)
            yield cmd.Configure(self._settings)
        yield cmd.Begin()

    def _reached(self, name: str, now_ms: int) -> Iterator[Reaction]:
        if name == self._probe:
            self._probe = ""
            self._round_trip_ms = now_ms - self._probed_ms
        elif (mark := self._marks.pop(name, None)) is not None:
            reply, position_ms = mark
            yield cmd.Played(reply, position_ms + self._round_trip_ms)

    # --- down -------------------------------------------------------------------------

    @override
    def notify(self, notice: nt.Notice, now_ms: int) -> Iterable[Reaction]:
        if self._failures.happens(notice) and self._apology is not None and self._started:
            packets = self._line.packets(self._apology(self._line.rate_hz))
            frames = [*self._wire.spoken(packets), *self._wire.audio_end()]
            return [Tell(frame) for frame in frames]
        match notice:
            case nt.ReplyAudio():
                return [Tell(frame) for frame in self._audio(notice, now_ms)]
            case nt.SentenceBegun(reply) if reply == self._reply:
                return [Tell(frame) for frame in self._mark()]
            case nt.ReplyAudioFinished(reply) if reply == self._reply:
                return [Tell(frame) for frame in (*self._wire.audio_end(), *self._mark())]
            case nt.Ended():
                return [Tell(frame) for frame in self._wire.hang_up()]
            case nt.ReplyCut(reply) if reply == self._reply and reply != self._voided:
                self._voided = reply
                self._marks.clear()
                self._probe = ""
                return [Tell(self._wire.clear())]
            case _:
                return ()

    def _audio(self, audio: nt.ReplyAudio, now_ms: int) -> Iterator[Frame]:
        if audio.reply != self._reply:
            self._reply, self._end_ms, self._marked_ms = audio.reply, 0, 0
            if self._wire.marks and not self._marks and not self._probe:
                self._probe, self._probed_ms = f"{audio.reply}:0", now_ms
                yield self._wire.mark(self._probe)
        self._end_ms = audio.end_ms
        yield from self._wire.audio(audio.packets)

    def _mark(self) -> Iterator[Frame]:
        """Send a mark at the end of the reply's audio so far."""
        if not self._wire.marks or self._marked_ms == self._end_ms:
            return
        self._marked_ms = self._end_ms
        name = f"{self._reply}:{self._end_ms}"
        if len(self._marks) >= MOST_MARKS:
            del self._marks[next(iter(self._marks))]
        self._marks[name] = (self._reply, self._end_ms)
        yield self._wire.mark(name)
