"""Hands-free: watches a session's microphone for speech, and keeps its last seconds for whoever recognises it late."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Protocol

from voicechat.providers.interfaces import PCM_RATE_HZ
from voicechat.runtime.echo import EchoWatch
from voicechat.session.events import Event, SpeechStarted, SpeechStopped, TurnJudged
from voicechat.session.vocabulary import TurnDetection
from voicechat.voice.activity import Activity, ActivitySettings, SpeechActivity
from voicechat.voice.activity import SpeechStarted as Began
from voicechat.voice.detector import Heard, OnHeard
from voicechat.voice.silero import FRAME_BYTES, FRAME_MS
from voicechat.voice.trailing import LOOK_BACK_MS, trailing_quiet_ms
from voicechat.voice.turn_model import LENGTH_MS, TurnJudge

BYTES_PER_MS = PCM_RATE_HZ * 2 // 1000
KEPT_MS = 4_000
"""Audio kept for a recogniser: the padding before speech, and what the detection and an overloaded tick may lag."""
SURPLUS_MS = 100
"""Kept beyond it, so that the oldest is not forgotten piece by piece."""

MISSING_MS = 1_000
"""Speech is over when no audio has come for so long: a client that is muted may send none, and silence that is not
sent cannot be detected. Networks hold audio up for less."""


class Ear(Protocol):
    """One session's way into the voice detection; see ``voicechat.voice.detector.Ear``."""

    def push(self, pcm: bytes) -> None:
        """Take audio of any length, s16le mono 16 kHz."""

    def note_gap(self) -> None:
        """Audio is missing before what follows."""

    def close(self) -> None:
        """Nothing is reported any more."""


class Detector(Protocol):
    """Voice detection; see ``voicechat.voice.detector.VoiceDetector``."""

    @property
    def turn_judge(self) -> TurnJudge | None:
        """What hears whether a turn is finished, if there is a model for it."""

    def register(self, on_heard: OnHeard) -> Ear:
        """Open an ear; ``on_heard`` is called on the event loop for each frame of its audio, in order."""


class Watch:
    """One session's microphone. Used on the event loop only."""

    def __init__(
        self,
        detector: Detector,
        detection: TurnDetection,
        now_ms: Callable[[], int],
        post: Callable[[Event], None],
        catch_up: Callable[[], None] = lambda: None,
    ) -> None:
        """``now_ms`` is the session's clock; ``post`` is told when speech starts and stops.

        ``catch_up`` lets the watch take all audio that has come, which may be gathered for it.

        After a stop it is also told whether the turn sounds finished, where there is a model for it.
        """
        settings = ActivitySettings(threshold=detection.threshold, prefix_padding_ms=detection.prefix_padding_ms)
        self._activity = SpeechActivity(settings)
        self._now_ms = now_ms
        self._post = post
        self._catch_up = catch_up
        self._ear: Ear = detector.register(self._on_heard)
        self._kept = bytearray()
        """The newest audio; its first sample stands at a whole millisecond."""
        self._position_bytes = 0
        self._begins_ms = 0
        self._judge = detector.turn_judge
        self._kept_ms = KEPT_MS if self._judge is None else max(KEPT_MS, LENGTH_MS)
        self._most_bytes = (self._kept_ms + SURPLUS_MS) * BYTES_PER_MS
        self._turn_from_ms: int | None = None
        """Where the first speech since the last reply began."""
        self._closed = False
        self._arrived_ms = 0
        """When the newest audio came."""
        self._judged_ms = 0
        """How much of it the voice detection has judged."""
        self._missing: asyncio.TimerHandle | None = None
        """While there is speech: looks whether audio still comes."""
        self._noticed = 0
        """How often speech has started or stopped."""
        self._echo = EchoWatch(now_ms, detection.min_interruption_ms, self._frame_before)

    @property
    def position_ms(self) -> int:
        """How much audio has been watched, from the position the watch began at."""
        return self._begins_ms + self._position_bytes // BYTES_PER_MS

    @property
    def wanted_bytes(self) -> int:
        """How many samples' bytes complete what can be judged next."""
        return FRAME_BYTES - self._position_bytes % FRAME_BYTES

    def begin_at(self, position_ms: int) -> None:
        """The microphone's first sample stands at ``position_ms`` of the connection's audio."""
        self._begins_ms = position_ms

    def take(self, pcm: bytes) -> None:
        """Watch the next samples, s16le mono 16 kHz."""
        self._arrived_ms = self._now_ms()
        self._kept += pcm
        self._position_bytes += len(pcm)
        if len(self._kept) >= self._most_bytes:
            del self._kept[: (len(self._kept) // BYTES_PER_MS - self._kept_ms) * BYTES_PER_MS]
        self._echo.hear(pcm)
        self._ear.push(pcm)

    def since(self, from_ms: int) -> tuple[int, bytes]:
        """The audio from ``from_ms`` on, as far as it is kept, and where it really begins."""
        oldest_ms = self._begins_ms + (self._position_bytes - len(self._kept)) // BYTES_PER_MS
        begins_ms = min(max(from_ms, oldest_ms), self.position_ms)
        return begins_ms, bytes(self._kept[(begins_ms - oldest_ms) * BYTES_PER_MS :])

    def made(self, reply: int, pcm: bytes, rate_hz: int, end_ms: int) -> None:
        """Speech of ``reply`` was made, s16le mono, up to ``end_ms`` of the reply."""
        self._echo.made(reply, pcm, rate_hz, end_ms)

    def sent(self, reply: int, end_ms: int) -> None:
        """Speech of ``reply`` up to ``end_ms`` was handed to the socket."""
        self._turn_from_ms = None
        self._echo.sent(reply, end_ms)

    def stopped(self) -> None:
        """The reply was cut off."""
        self._echo.stopped()

    def close(self) -> None:
        """Nothing is reported any more."""
        self._closed = True
        self._stop_looking()
        self._ear.close()

    def _on_heard(self, heard: Heard) -> None:
        self._judged_ms = heard.audio_ms
        for audio_ms, probability in self._echo.judge(heard):
            activity = self._activity.push(audio_ms, probability)
            if activity is not None:
                self._catch_up()
                self._note(activity)

    def _note(self, activity: Activity, silent_ms: int = 0) -> None:
        """Tell what happened ``silent_ms`` after the newest audio came."""
        self._noticed += 1
        if isinstance(activity, Began):
            if self._turn_from_ms is None:
                self._turn_from_ms = self._begins_ms + activity.audio_start_ms
            ago_ms = self.position_ms - (self._begins_ms + activity.onset_ms)
            self._look_after(MISSING_MS)
            self._post(SpeechStarted(self._begins_ms + activity.audio_start_ms, ago_ms))
        else:
            self._stop_looking()
            ended_ms = self._quiet_from(self._begins_ms + activity.audio_end_ms)
            self._post(SpeechStopped(ended_ms, self.position_ms - ended_ms + silent_ms))
            if self._judge is not None and self._turn_from_ms is not None:
                _, pcm = self.since(max(self._turn_from_ms, self.position_ms - LENGTH_MS))
                self._judge.ask(pcm, partial(self._on_judged, self._noticed))

    def _look_after(self, wait_ms: int) -> None:
        self._stop_looking()
        self._missing = asyncio.get_running_loop().call_later(wait_ms / 1000, self._look)

    def _stop_looking(self) -> None:
        if self._missing is not None:
            self._missing.cancel()
            self._missing = None

    def _look(self) -> None:
        """End the speech if no audio has come for `MISSING_MS`, and all that came has been judged."""
        self._missing = None
        silent_ms = self._now_ms() - self._arrived_ms
        unjudged_ms = self._position_bytes // BYTES_PER_MS - self._judged_ms
        if silent_ms < MISSING_MS:
            self._look_after(MISSING_MS - silent_ms)
        elif unjudged_ms >= FRAME_MS:
            self._look_after(MISSING_MS)
        else:
            self._ear.note_gap()
            self._note(self._activity.stop(self._judged_ms), silent_ms)

    def _frame_before(self, end_ms: int) -> bytes:
        """The frame that ends at ``end_ms`` of what was watched, for as long as it is kept."""
        end = len(self._kept) - self._position_bytes + end_ms * BYTES_PER_MS
        return bytes(self._kept[end - FRAME_BYTES : end]) if FRAME_BYTES <= end <= len(self._kept) else b""

    def _on_judged(self, noticed: int, probability: float) -> None:
        if noticed == self._noticed and not self._closed:
            self._post(TurnJudged(probability))

    def _quiet_from(self, ended_ms: int) -> int:
        """Where the speech ended by its loudness, of which the model heard the end at ``ended_ms``."""
        begins_ms, pcm = self.since(ended_ms - LOOK_BACK_MS)
        return ended_ms - trailing_quiet_ms(pcm[: max(0, ended_ms - begins_ms) * BYTES_PER_MS])
