"""Hands-free: watches a session's microphone for speech, and keeps its last seconds for a recogniser that comes late.

What the loudspeaker says is not speech of the user: frames in which the echo of the reply prevails count as silence.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from voicechat.audio.resample import RateConverter
from voicechat.providers.interfaces import PCM_RATE_HZ
from voicechat.session.events import Event, SpeechStarted, SpeechStopped
from voicechat.session.vocabulary import TurnDetection
from voicechat.voice.activity import ActivitySettings, SpeechActivity
from voicechat.voice.activity import SpeechStarted as Began
from voicechat.voice.detector import Ear, Heard, VoiceDetector
from voicechat.voice.echo import EchoDetector
from voicechat.voice.silero import FRAME_BYTES, FRAME_MS

BYTES_PER_MS = PCM_RATE_HZ * 2 // 1000
KEPT_MS = 4_000
"""Audio kept for a recogniser: the padding before speech, and what the detection and an overloaded tick may lag."""
ECHO_PREVAILS = 0.5
"""Share of echo in a frame from which it is not the user's speech."""
REPLY_KEPT_MS = 30_000
"""Speech of a reply that has been made and not been sent yet; of more, the echo is not looked for."""


class Listener(Protocol):
    """A recogniser stream that follows the microphone."""

    def take(self, pcm: bytes) -> None:
        """Take s16le mono 16 kHz."""


class Watch:
    """One session's microphone. Used on the event loop only."""

    def __init__(
        self,
        detector: VoiceDetector,
        detection: TurnDetection,
        now_ms: Callable[[], int],
        post: Callable[[Event], None],
    ) -> None:
        """``now_ms`` is the session's clock; ``post`` is told when speech starts and stops."""
        settings = ActivitySettings(threshold=detection.threshold, prefix_padding_ms=detection.prefix_padding_ms)
        self._activity = SpeechActivity(settings)
        self._now_ms = now_ms
        self._post = post
        self._ear: Ear = detector.register(self._on_heard)
        self._kept: deque[tuple[int, bytes]] = deque()
        self._position_bytes = 0
        self._begins_ms = 0
        self._echo = _Echo(now_ms)

    @property
    def position_ms(self) -> int:
        """How much audio has been watched, from the position the watch began at."""
        return self._begins_ms + self._position_bytes // BYTES_PER_MS

    def begin_at(self, position_ms: int) -> None:
        """The microphone's first sample stands at ``position_ms`` of the connection's audio."""
        self._begins_ms = position_ms

    def take(self, pcm: bytes) -> None:
        """Watch the next samples, s16le mono 16 kHz."""
        self._kept.append((self.position_ms, pcm))
        self._position_bytes += len(pcm)
        oldest_ms = self.position_ms - KEPT_MS
        while self._kept and self._kept[0][0] + len(self._kept[0][1]) // BYTES_PER_MS <= oldest_ms:
            self._kept.popleft()
        self._echo.hear(pcm)
        self._ear.push(pcm)

    def since(self, from_ms: int) -> tuple[int, bytes]:
        """The audio from ``from_ms`` on, as far as it is kept, and where it really begins."""
        pieces = []
        begins_ms = self.position_ms
        for start_ms, pcm in self._kept:
            skipped = max(0, from_ms - start_ms) * BYTES_PER_MS
            if skipped < len(pcm):
                begins_ms = min(begins_ms, max(start_ms, from_ms))
                pieces.append(pcm[skipped:])
        return begins_ms, b"".join(pieces)

    def made(self, reply: int, pcm: bytes, rate_hz: int, end_ms: int) -> None:
        """Speech of ``reply`` was made, s16le mono, up to ``end_ms`` of the reply."""
        self._echo.made(reply, pcm, rate_hz, end_ms)

    def sent(self, reply: int, end_ms: int) -> None:
        """Speech of ``reply`` up to ``end_ms`` was handed to the socket."""
        self._echo.sent(reply, end_ms)

    def stopped(self) -> None:
        """The reply was cut off."""
        self._echo.stopped()

    def close(self) -> None:
        """Nothing is reported any more."""
        self._ear.close()

    def _on_heard(self, heard: Heard) -> None:
        echo = self._echo.share(heard.audio_ms)
        probability = 0.0 if echo > ECHO_PREVAILS else heard.probability
        activity = self._activity.push(heard.audio_ms, probability)
        if activity is None:
            return
        if isinstance(activity, Began):
            ago_ms = self.position_ms - (self._begins_ms + activity.onset_ms)
            self._post(SpeechStarted(self._begins_ms + activity.audio_start_ms, ago_ms))
        else:
            ended_ms = self._begins_ms + activity.audio_end_ms
            self._post(SpeechStopped(ended_ms, self.position_ms - ended_ms))


class _Echo:
    """The reply's samples on their way to the loudspeaker, and their echo in the microphone's frames."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._detector = EchoDetector()
        self._converter = RateConverter(PCM_RATE_HZ)
        self._reply = 0
        self._made: deque[tuple[int, bytes]] = deque()
        self._made_bytes = 0
        self._plays_until_ms = 0
        self._frame = b""
        self._frames_ms = 0
        self._shares: deque[tuple[int, float]] = deque(maxlen=2 * KEPT_MS // FRAME_MS)
        self._active = False

    def made(self, reply: int, pcm: bytes, rate_hz: int, end_ms: int) -> None:
        if reply != self._reply:
            self._reply = reply
            self._made.clear()
            self._made_bytes = 0
        converted = self._converter.push(pcm, rate_hz)
        if self._made_bytes <= REPLY_KEPT_MS * BYTES_PER_MS:
            self._made.append((end_ms, converted))
            self._made_bytes += len(converted)

    def sent(self, reply: int, end_ms: int) -> None:
        while reply == self._reply and self._made and self._made[0][0] <= end_ms:
            _, pcm = self._made.popleft()
            self._made_bytes -= len(pcm)
            at_ms = max(self._now_ms(), self._plays_until_ms)
            self._detector.played(pcm, at_ms)
            self._plays_until_ms = at_ms + len(pcm) // BYTES_PER_MS
            self._active = True

    def stopped(self) -> None:
        self._made.clear()
        self._made_bytes = 0
        if self._active:
            self._plays_until_ms = min(self._plays_until_ms, self._now_ms())
            self._detector.stopped(self._now_ms())

    def hear(self, pcm: bytes) -> None:
        """Judge the microphone's frames as they come; the voice detector tells of the same frames a little later."""
        audio = self._frame + pcm
        whole = len(audio) - len(audio) % FRAME_BYTES
        now_ms = self._now_ms()
        for start in range(0, whole, FRAME_BYTES):
            self._frames_ms += FRAME_MS
            if self._active:
                ago_ms = (len(audio) - start - FRAME_BYTES) // BYTES_PER_MS
                share = self._detector.heard(audio[start : start + FRAME_BYTES], now_ms - ago_ms)
                self._shares.append((self._frames_ms, share))
        self._frame = audio[whole:]

    def share(self, audio_ms: int) -> float:
        """The share of echo in the frame that ends at ``audio_ms`` of the microphone's audio."""
        while self._shares and self._shares[0][0] < audio_ms:
            self._shares.popleft()
        return self._shares[0][1] if self._shares and self._shares[0][0] == audio_ms else 0.0
