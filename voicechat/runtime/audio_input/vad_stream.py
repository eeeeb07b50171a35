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
from voicechat.voice.detector import FrameScore, OnScore
from voicechat.voice.silero import FRAME_MS
from voicechat.voice.trailing import LOOK_BACK_MS, trailing_quiet_ms
from voicechat.voice.turn_model import LENGTH_MS, TurnJudge

KEPT_MS = 4_000
"""Audio kept for a recogniser: the padding before speech, and what the detection and an
overloaded tick may lag.
"""
CONFIRM_MS = 100
"""Whoever seems to send nothing is given this long again: a process that was held up
finds audio in its sockets that it has not read yet.
"""
TURN_S = 10.0
"""For so long after speech its turn counts as under way: the recogniser, the chat model
and the synthesiser take their time.
"""
HEARD_S = 5.0
"""And for so long after each piece of the reply's audio, which may be interrupted."""
MOST_UNJUDGED_MS = 2_000
"""Audio that may wait for the voice detection before no more is read: half of what is
kept for a recogniser, which must find the beginning of speech in it.
"""
BEHIND_MS = 100
"""From 100 ms on the session is told how much audio after a stop waits to be judged,
and again when that has changed by half as much.
"""
PAUSE_MS = 5_000
"""This is reported for 5 s after a stop, or until the turn ends."""
MISSING_MS = 1_000
"""Speech is over when no audio has come for so long: a client that is muted may send
none, and silence that is not sent cannot be detected. Networks hold audio up for less.
"""
LATE_MISSING_MS = 5_000
"""The same while the event loop is late, which reads audio later than it came."""


class DetectionStream(Protocol):
    """One session's way into the voice detection; see
    ``voicechat.voice.detector.DetectorStream``.
    """

    urgent: bool
    """The next frame is to be judged without waiting for those of other streams."""
    preferred_until_s: float
    """Until then, by the loop's clock, a turn is under way: others may wait for it."""
    turn_open: bool
    """Whether the end of the user's turn is awaited: the others may wait for it."""

    def push(self, pcm: bytes) -> None:
        """Take audio of any length, s16le mono 16 kHz."""

    def note_gap(self, at_ms: int) -> None:
        """Audio is missing: what follows begins at ``at_ms``."""

    def close(self) -> None:
        """Nothing is reported any more."""


class Detector(Protocol):
    """Voice detection; see ``voicechat.voice.detector.VoiceDetector``."""

    @property
    def turn_judge(self) -> TurnJudge | None:
        """What hears whether a turn is finished, if there is a model for it."""

    @property
    def background_db(self) -> float:
        """So much fainter than the user's is a voice in the background; 0: none is."""

    def open_stream(self, on_score: OnScore) -> DetectionStream:
        """Open a stream; ``on_score`` is called on the event loop for each frame of its
        audio, in order.
        """


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
        missing_ms: Callable[[], int],
        settle_room: Callable[[], None],
    ) -> None:
        """``timeline`` has the audio that is pushed here already; ``now_ms`` is the
        session's clock.

        ``post`` is told when speech starts and stops, and after a stop whether the turn
        sounds finished, where there is a model for it. ``missing_ms`` says for how long
        no audio has come that could have. ``settle_room`` is told of each change of
        ``full``.
        """
        settings = ActivitySettings(
            threshold=detection.threshold, prefix_padding_ms=detection.prefix_padding_ms
        )
        self._activity = SpeechActivity(settings)
        self._timeline = timeline
        self._echo = echo
        self._post = post
        self._now_ms = now_ms
        self._missing_ms = missing_ms
        self._settle_room = settle_room
        self.full = False
        """More than ``MOST_UNJUDGED_MS`` waits to be judged."""
        self._stopped_ms: int | None = None
        """Where speech stopped last, until it goes on or ``PAUSE_MS`` are judged."""
        self._told_behind_ms = 0
        """What ``DetectionDelayed`` told last."""
        self._least_behind_ms = BEHIND_MS
        """Less than this is not reported. It is one frame during a pause in which the
        event loop was late.
        """
        self._loop = asyncio.get_running_loop()
        self._late_until_s = 0.0
        """Until when the event loop counts as late."""
        self._stream: DetectionStream = detector.open_stream(self._on_score)
        self._judge = detector.turn_judge
        difference_db = detector.background_db
        self._foreground = Foreground(timeline, difference_db) if difference_db else None
        timeline.keep(KEPT_MS if self._judge is None else max(KEPT_MS, LENGTH_MS))
        self._begins_bytes = 0
        """Where the audio begins that has been heard without a gap."""
        self._judged_ms = 0
        """Up to where the voice detection has judged it."""
        self._turn_from_ms: int | None = None
        """Where the first speech since the last reply began."""
        self._looking: asyncio.TimerHandle | None = None
        """While there is speech: looks whether audio still comes."""
        self._missed = False
        """No audio came when it was looked for last."""
        self._noticed = 0
        """How often speech has started or stopped."""
        self._closed = False
        self.begin()

    def begin(self) -> None:
        """What comes next does not continue what came before, if anything did."""
        # Frames begin at whole milliseconds, so that they can be found on the time
        # line.
        self._judged_ms = -(-self._timeline.end_bytes // BYTES_PER_MS)
        self._begins_bytes = self._judged_ms * BYTES_PER_MS
        self._activity.begin(self._judged_ms)
        self._stream.note_gap(self._judged_ms)
        self._set_full(False)
        self._end_pause()

    def push(self, pcm: bytes) -> None:
        """Hear the newest samples of the time line, s16le mono 16 kHz, which have just
        come.
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

    def replied(self) -> None:
        """The assistant is heard: what is said from now on is another turn."""
        self._turn_from_ms = None
        self._prefer(HEARD_S)

    @property
    def silent(self) -> bool:
        """Whether nobody has spoken or been answered lately, nor seems to begin."""
        return self._activity.idle and self._loop.time() >= self._stream.preferred_until_s

    def stop(self) -> None:
        """No more audio comes for now: speech is over."""
        if self._activity.speaking:
            self._note(self._activity.stop(self._judged_ms))
        self.begin()

    def close(self) -> None:
        """Nothing is reported any more."""
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
            return  # silence goes on, as most of the time
        for audio_ms, probability in self._echo.judge(score):
            if self._foreground is not None and probability >= LIKE_SPEECH:
                probability = self._foreground.judge(audio_ms, probability)
            activity = self._activity.push(audio_ms, probability)
            if activity is not None:
                self._note(activity)
        self._stream.urgent = self._activity.decides(score.audio_ms + FRAME_MS)

    def _note(self, activity: Activity) -> None:
        """Report what happened, and how long ago.

        The newest audio ended when it came and not now: since then its frame has waited
        for those of other sessions. Without that time every turn would end, and every
        interruption begin, later by as much.
        """
        self._noticed += 1
        self._prefer(TURN_S)
        end_ms = self._timeline.end_ms
        now_ms = end_ms + self._missing_ms()
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
        """For so long a turn is under way."""
        self._stream.preferred_until_s = self._loop.time() + for_s

    def _set_full(self, full: bool) -> None:
        if full is not self.full:
            self.full = full
            self._settle_room()

    def note_unread(self) -> None:
        """Report how much audio of the turn is not judged, unread audio included.

        To be called before each decision while the event loop is late. Audio that has
        not come for ``MISSING_MS`` counts as not sent.
        """
        missing_ms = self._missing_ms()
        self._late_until_s = self._loop.time() + MISSING_MS / 1000
        if self._stopped_ms is not None or self._activity.speaking:
            self._least_behind_ms = FRAME_MS
            self._report_behind(missing_ms if missing_ms < MISSING_MS else 0, FRAME_MS // 2)

    def end_turn(self) -> None:
        """The turn has ended: no decision waits for this pause any more."""
        self._end_pause()

    def _check_behind(self) -> None:
        """Report how much audio waits to be judged, if that has changed much or all has
        been judged.
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
        """Where the speech ended by its loudness, of which the model heard the end at
        ``ended_ms``.
        """
        begins_ms, pcm = self._timeline.since(ended_ms - LOOK_BACK_MS)
        return ended_ms - trailing_quiet_ms(pcm[: max(0, ended_ms - begins_ms) * BYTES_PER_MS])

    # --- audio that does not come -----------------------------------------------------

    def _look_after(self, wait_ms: int) -> None:
        self._stop_looking()
        self._missed = False
        self._looking = asyncio.get_running_loop().call_later(wait_ms / 1000, self._look)

    def _stop_looking(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def _look(self) -> None:
        """End the speech if no audio has come for `MISSING_MS`, and all that came has
        been judged.
        """
        self._looking = None
        missing_ms = self._missing_ms()
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
