"""Hands-free: finds the user's speech in a session's microphone, on the time line of
the connection's audio.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Protocol

from voicechat.runtime.audio_input.echo_gate import LIKE_SPEECH, EchoGate
from voicechat.runtime.audio_input.foreground import Foreground
from voicechat.runtime.audio_input.ring_buffer import BYTES_PER_MS, RingBuffer
from voicechat.session.events import (
    DetectionDelayed,
    Event,
    SpeechStarted,
    SpeechStopped,
    TurnJudged,
)
from voicechat.session.types import TurnDetection
from voicechat.voice.activity import Activity, ActivitySettings, SpeechActivity, SpeechOnset
from voicechat.voice.detector import GATHER_MS, FrameScore, OnScore
from voicechat.voice.silero import FRAME_BYTES, FRAME_MS, MOST_FRAMES
from voicechat.voice.trailing import LOOK_BACK_MS, trailing_quiet_ms
from voicechat.voice.turn_model import LENGTH_MS, TurnJudge

KEPT_MS = 4_000
"""Audio kept for a recogniser: the padding before speech, plus the lag of voice
detection under load.
"""
CONFIRM_MS = 100
"""A second wait before missing audio ends the speech: a process that was stalled finds
unread audio in its sockets.
"""
TURN_S = 10.0
"""How long after speech the turn counts as under way, while the recogniser, the chat
model and the synthesiser work.
"""
HEARD_S = 5.0
"""The same after each piece of the reply's audio, because the user may interrupt it."""
MOST_UNJUDGED_MS = 2_000
"""Bound of the audio waiting for voice detection; beyond it the socket is not read.
Half of ``KEPT_MS``, in which a recogniser must find the beginning of speech.
"""
BEHIND_MS = 100
"""From 100 ms on, the amount of unjudged audio after a stop is reported to the session,
and again when it has changed by half as much.
"""
PAUSE_MS = 5_000
"""The unjudged audio is reported for 5 s after a stop, or until the turn ends."""
SPEAKING_GATHER_MS = 20
"""How long two frames wait for those of other sessions during speech. They are judged
before the third arrives, even if a frame of the client completed them 12 ms late, and
three frames of silence end speech: so no end is found later.
"""
MISSING_MS = 1_000
"""Speech ends when no audio has arrived for this long: a muted client may send none,
and silence that is not sent cannot be detected. Networks delay audio for less.
"""
LATE_MISSING_MS = 5_000
"""The same while the event loop is late and reads audio some time after its arrival."""


class DetectionStream(Protocol):
    """One session's stream of the voice detection; see
    ``voicechat.voice.detector.DetectorStream``.
    """

    gather_ms: int
    """How long the next frame may wait for frames of other streams."""
    preferred_until_s: float
    """Loop time until which a turn is under way, so that this stream has precedence."""
    turn_open: bool
    """Whether the end of the user's turn is awaited, so that this stream has
    precedence.
    """

    def push(self, pcm: bytes) -> None:
        """Add audio of any length, s16le mono 16 kHz."""

    def note_gap(self, at_ms: int) -> None:
        """Note that audio is missing: the next audio begins at ``at_ms``."""

    def close(self) -> None:
        """Stop reporting."""


class Detector(Protocol):
    """Voice detection; see ``voicechat.voice.detector.VoiceDetector``."""

    @property
    def turn_judge(self) -> TurnJudge | None:
        """The judge of whether a turn sounds finished; None without a model for it."""

    @property
    def background_db(self) -> float:
        """How many decibels fainter than the user a background voice is; 0 disables the
        distinction.
        """

    def open_stream(self, on_score: OnScore) -> DetectionStream:
        """Open a stream; ``on_score`` is called on the event loop for each frame of its
        audio, in order.
        """


class AudioSource(Protocol):
    """The audio input to which a stream belongs; see ``AudioInput``."""

    def missing_ms(self) -> int:
        """How far the time line lags behind the client's time; 0 while audio waits to
        be decoded.
        """

    def settle_room(self) -> None:
        """Note that ``VadStream.full`` has changed."""

    def settle_gathering(self) -> None:
        """Note that ``VadStream.wanted_bytes`` has changed."""

    def take_gathered(self) -> None:
        """Push the audio that is being gathered."""


class VadStream:
    """One session's voice activity detection. Used on the event loop only."""

    def __init__(
        self,
        detector: Detector,
        detection: TurnDetection,
        timeline: RingBuffer,
        echo: EchoGate,
        *,
        post: Callable[[Event], None],
        now_ms: Callable[[], int],
        source: AudioSource,
    ) -> None:
        """``timeline`` already contains the audio passed to ``push``; ``now_ms`` is the
        session's clock.

        ``post`` receives the starts and stops of speech and, after a stop, whether the
        turn sounds finished, if there is a model for it.
        """
        settings = ActivitySettings(
            threshold=detection.threshold, prefix_padding_ms=detection.prefix_padding_ms
        )
        self._activity = SpeechActivity(settings)
        self._timeline = timeline
        self._echo = echo
        self._post = post
        self._now_ms = now_ms
        self._source = source
        self._hurried = False
        """Whether the next frame is awaited alone."""
        self.full = False
        """Whether more than ``MOST_UNJUDGED_MS`` waits to be judged."""
        self._stopped_ms: int | None = None
        """Position at which speech last stopped, until it resumes or ``PAUSE_MS`` more
        are judged.
        """
        self._told_behind_ms = 0
        """The value of the last ``DetectionDelayed``."""
        self._least_behind_ms = BEHIND_MS
        """Smaller delays are not reported. One frame during a pause in which the event
        loop was late.
        """
        self._loop = asyncio.get_running_loop()
        self._late_until_s = 0.0
        """Loop time until which the event loop counts as late."""
        self._stream: DetectionStream = detector.open_stream(self._on_score)
        self._judge = detector.turn_judge
        difference_db = detector.background_db
        self._foreground = Foreground(timeline, difference_db) if difference_db else None
        timeline.keep(KEPT_MS if self._judge is None else max(KEPT_MS, LENGTH_MS))
        self._begins_bytes = 0
        """Position at which the audio without a gap begins."""
        self._judged_ms = 0
        """Position up to which voice detection has judged it."""
        self._turn_from_ms: int | None = None
        """Position of the first speech since the last reply."""
        self._looking: asyncio.TimerHandle | None = None
        """During speech: the timer that checks whether audio still arrives."""
        self._missed = False
        """Whether no audio had arrived at the last check."""
        self._noticed = 0
        """Number of starts and stops of speech."""
        self._closed = False
        self.begin()

    def begin(self) -> None:
        """Begin anew: the next audio does not continue the earlier audio."""
        # Frames begin at whole milliseconds, so that they can be found on the time
        # line.
        self._judged_ms = -(-self._timeline.end_bytes // BYTES_PER_MS)
        self._begins_bytes = self._judged_ms * BYTES_PER_MS
        self._activity.begin(self._judged_ms)
        self._stream.note_gap(self._judged_ms)
        self._set_full(False)
        self._end_pause()

    def push(self, pcm: bytes) -> None:
        """Pass on the newest samples of the time line, s16le mono 16 kHz, which have
        just arrived.
        """
        before_bytes = self._begins_bytes - (self._timeline.end_bytes - len(pcm))
        if before_bytes > 0:
            pcm = pcm[before_bytes:]
        if self._echo.armed:
            self._echo.place(len(pcm) // BYTES_PER_MS, self._now_ms())
        self._stream.push(pcm)
        behind_ms = self._timeline.end_bytes // BYTES_PER_MS - self._judged_ms
        if behind_ms > MOST_UNJUDGED_MS:
            self._set_full(True)
        if self._stopped_ms is not None and behind_ms >= self._least_behind_ms == BEHIND_MS:
            # While the event loop is late, `note_unread` reports it when it is needed.
            self._check_behind()

    @property
    def wanted_bytes(self) -> int:
        """How much audio completes the next frames: one frame while a beginning or an
        end of speech may have come, otherwise `MOST_FRAMES`, because no decision needs
        fewer.
        """
        begun_bytes = (self._timeline.end_bytes - self._begins_bytes) % FRAME_BYTES
        return FRAME_BYTES * (1 if self._hurried else MOST_FRAMES) - begun_bytes

    def replied(self) -> None:
        """Note that the assistant is heard: later speech belongs to another turn."""
        self._turn_from_ms = None
        self._prefer(HEARD_S)

    @property
    def silent(self) -> bool:
        """Whether the user has neither spoken nor been answered lately, and is not
        beginning to speak.
        """
        return self._activity.idle and self._loop.time() >= self._stream.preferred_until_s

    def stop(self) -> None:
        """End the speech, because no more audio arrives for now."""
        if self._activity.speaking:
            self._note(self._activity.stop(self._judged_ms))
        self.begin()

    def close(self) -> None:
        """Stop reporting."""
        self._closed = True
        self._stop_looking()
        self._stream.close()

    def _on_score(self, score: FrameScore) -> None:
        self._judged_ms = score.audio_ms
        if self.full and self._timeline.end_ms - score.audio_ms < MOST_UNJUDGED_MS // 2:
            self._set_full(False)
        if self._stopped_ms is not None or self._told_behind_ms:
            self._check_behind()
        if (
            score.probability == 0
            and self._activity.idle
            and self._echo.take_silence(score.audio_ms)
        ):
            return  # continued silence, the usual case
        for audio_ms, probability in self._echo.judge(score):
            if self._foreground is not None and probability >= LIKE_SPEECH:
                probability = self._foreground.judge(audio_ms, probability)
            activity = self._activity.push(audio_ms, probability)
            if activity is not None:
                self._note(activity)
        if not self._activity.changing:
            self._stream.gather_ms = SPEAKING_GATHER_MS if self._activity.speaking else GATHER_MS
            hurried = self._echo.searching
        else:
            decides = self._activity.decides(score.audio_ms + FRAME_MS)
            self._stream.gather_ms = 0 if decides else GATHER_MS
            hurried = True
        if hurried is not self._hurried:
            self._hurried = hurried
            self._source.settle_gathering()

    def _note(self, activity: Activity) -> None:
        """Report a start or stop of speech, and how long ago it was.

        The newest audio ended when it arrived, not now: since then its frame has waited
        for those of other sessions. If that time were left out, every turn would end
        late, and every interruption begin late, by as much.
        """
        self._noticed += 1
        self._prefer(TURN_S)
        end_ms = self._timeline.end_ms
        now_ms = end_ms + self._source.missing_ms()
        if isinstance(activity, SpeechOnset):
            if self._turn_from_ms is None:
                self._turn_from_ms = activity.audio_start_ms
            self._end_pause()
            self._stream.turn_open = True
            self._look_after(MISSING_MS)
            self._post(SpeechStarted(activity.audio_start_ms, now_ms - activity.onset_ms))
        else:
            self._stop_looking()
            ended_ms = self._quiet_from(activity.audio_end_ms)
            self._stopped_ms = ended_ms
            self._check_behind()
            self._post(SpeechStopped(ended_ms, now_ms - ended_ms))
            if self._judge is not None and self._turn_from_ms is not None:
                _, pcm = self._timeline.since(max(self._turn_from_ms, end_ms - LENGTH_MS))
                self._judge.ask(pcm, partial(self._on_judged, self._noticed))

    def _on_judged(self, noticed: int, probability: float) -> None:
        if noticed == self._noticed and not self._closed:
            self._post(TurnJudged(probability))

    def _prefer(self, for_s: float) -> None:
        """Mark a turn as under way for this many seconds."""
        self._stream.preferred_until_s = self._loop.time() + for_s

    def _set_full(self, full: bool) -> None:
        if full is not self.full:
            self.full = full
            self._source.settle_room()

    def note_unread(self) -> None:
        """Report how much audio of the turn is not judged, unread audio included.

        Call this before each decision while the event loop is late. If no audio has
        arrived for ``MISSING_MS``, it counts as not sent.
        """
        missing_ms = self._source.missing_ms()
        self._late_until_s = self._loop.time() + MISSING_MS / 1000
        if self._stopped_ms is not None or self._activity.speaking:
            self._least_behind_ms = FRAME_MS
            self._report_behind(missing_ms if missing_ms < MISSING_MS else 0, FRAME_MS // 2)

    def end_turn(self) -> None:
        """Note that the turn has ended: no decision depends on this pause any more."""
        self._end_pause()

    def _check_behind(self) -> None:
        """Report the amount of audio waiting to be judged, if it has changed by half of
        ``BEHIND_MS`` or has become 0.
        """
        self._report_behind(0, BEHIND_MS // 2)
        if self._stopped_ms is not None and self._judged_ms - self._stopped_ms > PAUSE_MS:
            self._end_pause()

    def _report_behind(self, unread_ms: int, least_change_ms: int) -> None:
        behind_ms = self._timeline.end_ms - self._judged_ms + unread_ms
        if behind_ms < self._least_behind_ms:
            behind_ms = 0
        change_ms = abs(behind_ms - self._told_behind_ms)
        if change_ms >= least_change_ms or (change_ms and not behind_ms):
            self._told_behind_ms = behind_ms
            self._post(DetectionDelayed(behind_ms))

    def _end_pause(self) -> None:
        self._stopped_ms = None
        self._stream.turn_open = False
        self._least_behind_ms = BEHIND_MS
        if self._told_behind_ms:
            self._told_behind_ms = 0
            self._post(DetectionDelayed(0))

    def _quiet_from(self, ended_ms: int) -> int:
        """Return where the speech ended by its loudness, for an end that the model
        detected at ``ended_ms``.
        """
        begins_ms, pcm = self._timeline.since(ended_ms - LOOK_BACK_MS)
        return ended_ms - trailing_quiet_ms(pcm[: max(0, ended_ms - begins_ms) * BYTES_PER_MS])

    # --- missing audio ----------------------------------------------------------------

    def _look_after(self, wait_ms: int) -> None:
        self._stop_looking()
        self._missed = False
        self._looking = asyncio.get_running_loop().call_later(wait_ms / 1000, self._look)

    def _stop_looking(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def _look(self) -> None:
        """End the speech if no audio has arrived for `MISSING_MS` and all received
        audio has been judged.
        """
        self._looking = None
        self._source.take_gathered()
        missing_ms = self._source.missing_ms()
        unjudged_ms = self._timeline.end_ms - self._judged_ms
        late = self._loop.time() < self._late_until_s
        most_ms = LATE_MISSING_MS if late else MISSING_MS
        if missing_ms < most_ms:
            self._prefer(TURN_S)
            self._look_after(max(MISSING_MS - missing_ms, CONFIRM_MS))
        elif unjudged_ms >= FRAME_MS:
            self._look_after(MISSING_MS)
        elif not self._missed:
            self._look_after(CONFIRM_MS)
            self._missed = True
        else:
            self._note(self._activity.stop(self._judged_ms))
            self.begin()
