"""Hands-free: what the loudspeaker says is not speech of the user.

Frames of the microphone in which the echo of the reply prevails count as silence. Where that is not certain yet, a
frame that sounds like speech is kept back for some frames: then it is dropped with those before it, or it counts, at
the time at which it was spoken.
"""

from collections import deque
from collections.abc import Callable

from voicechat.audio.resample import RateConverter
from voicechat.providers.interfaces import PCM_RATE_HZ
from voicechat.voice.detector import Heard
from voicechat.voice.echo import MAX_DELAY_MS, EchoDetector
from voicechat.voice.silero import FRAME_BYTES, FRAME_MS

BYTES_PER_MS = PCM_RATE_HZ * 2 // 1000
PREVAILS = 0.5
"""Share of echo in a frame from which it is not the user's speech."""
LIKE_SPEECH = 0.3
"""Probability of speech below which a frame needs no thought."""
AFTERGLOW_MS = 128
"""The detector of speech remembers: so long after the echo it may still hear speech in the room's last sound."""
SEARCHED_MS = 448
"""In the first reply of a session the delay of its echo is found within so long, or there is none."""
SETTLED_MS = MAX_DELAY_MS + 1_000
"""Of a reply in which no echo was found: there is none in this session, and nothing is kept back for it."""
MEASURED_AFTER_MS = 64
"""From the delay to the first share that means something."""
STOPS_WITHIN_MS = 250
"""A client that is told to be silent is still heard for so long: the network, its sound card, the room."""
JITTER_MS = 200
"""A microphone is continuous and the network is not: its frames are placed by their number, not by their arrival, as
long as they do not arrive so much earlier or later. A millisecond of misplacement costs the coherence of 200 ms."""
ASTRAY_MS = 600
"""Frames that have arrived for so long at another time than expected: the client had stopped its microphone. What a
network held up arrives all at once, and is in its time again."""
REPLY_KEPT_MS = 30_000
"""Speech of a reply that has been made and not been sent yet; of more, the echo is not looked for."""
SHARES_KEPT_MS = 8_000
"""How far the voice detection may lag."""


class EchoWatch:
    """One session's echo: the reply's samples on their way to the loudspeaker, the microphone's frames, the verdict."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        """``now_ms`` is the session's clock."""
        self._now_ms = now_ms
        self._detector = EchoDetector()
        self._converter = RateConverter(PCM_RATE_HZ)
        self._reply = 0
        self._made: deque[tuple[int, bytes]] = deque()
        self._made_bytes = 0
        self._plays_until_ms = 0
        self._frame = b""
        self._frames_ms = 0
        self._began_ms: int | None = None
        """When the microphone's first sample was recorded, by the arrival of its frames."""
        self._astray_ms = 0
        self._shares: deque[tuple[int, float]] = deque(maxlen=SHARES_KEPT_MS // FRAME_MS)
        self._active = False
        self._unexplained_ms = 0
        """How much of the microphone was heard during replies without any echo in it."""
        self._found_ms: int | None = None
        """The frame in which the delay was found; the shares of the first ones after it say nothing yet."""
        self._doubtful: deque[tuple[int, float]] = deque()
        self._echo_until_ms: int | None = None

    # --- the reply ---------------------------------------------------------------------------------------------

    def made(self, reply: int, pcm: bytes, rate_hz: int, end_ms: int) -> None:
        """Speech of ``reply`` was made, s16le mono, up to ``end_ms`` of the reply."""
        if reply != self._reply:
            self._reply = reply
            self._made.clear()
            self._made_bytes = 0
        converted = self._converter.push(pcm, rate_hz)
        if self._made_bytes <= REPLY_KEPT_MS * BYTES_PER_MS:
            self._made.append((end_ms, converted))
            self._made_bytes += len(converted)

    def sent(self, reply: int, end_ms: int) -> None:
        """Speech of ``reply`` up to ``end_ms`` was handed to the socket."""
        while reply == self._reply and self._made and self._made[0][0] <= end_ms:
            _, pcm = self._made.popleft()
            self._made_bytes -= len(pcm)
            at_ms = max(self._now_ms(), self._plays_until_ms)
            self._detector.played(pcm, at_ms)
            self._plays_until_ms = at_ms + len(pcm) // BYTES_PER_MS
            self._active = True

    def stopped(self) -> None:
        """The reply was cut off."""
        self._made.clear()
        self._made_bytes = 0
        if self._active:
            self._plays_until_ms = min(self._plays_until_ms, self._now_ms())
            self._detector.stopped(self._now_ms() + STOPS_WITHIN_MS)

    # --- the microphone ----------------------------------------------------------------------------------------

    def hear(self, pcm: bytes) -> None:
        """Measure the microphone's frames as they come; the voice detection tells of the same frames a little later."""
        audio = self._frame + pcm
        whole = len(audio) - len(audio) % FRAME_BYTES
        began_ms = self._place(len(audio) // BYTES_PER_MS, len(pcm) // BYTES_PER_MS)
        for start in range(0, whole, FRAME_BYTES):
            self._frames_ms += FRAME_MS
            if self._active:
                at_ms = began_ms + self._frames_ms
                share = self._detector.heard(audio[start : start + FRAME_BYTES], at_ms)
                self._shares.append((self._frames_ms, share))
                if self._detector.delay_ms is None:
                    self._unexplained_ms += FRAME_MS if at_ms < self._plays_until_ms else 0
                elif self._found_ms is None:
                    self._found_ms = self._frames_ms
        self._frame = audio[whole:]

    def _place(self, waiting_ms: int, new_ms: int) -> int:
        """When the first sample was recorded, given that the newest ones have just arrived."""
        began_ms = self._now_ms() - self._frames_ms - waiting_ms
        if self._began_ms is None:
            self._began_ms = began_ms
        self._astray_ms = self._astray_ms + new_ms if abs(began_ms - self._began_ms) > JITTER_MS else 0
        if self._astray_ms > ASTRAY_MS:
            self._began_ms, self._astray_ms, self._unexplained_ms = began_ms, 0, 0
        return self._began_ms

    def judge(self, heard: Heard) -> list[tuple[int, float]]:
        """Give the frames that are certain now, oldest first: where each ends, and how surely it is the user's speech.

        Frames come out in the order in which they went in, each once.
        """
        frame = (heard.audio_ms, heard.probability)
        if self._share(heard.audio_ms) > PREVAILS:
            self._echo_until_ms = heard.audio_ms
            return [*self._silent(), (heard.audio_ms, 0.0)]
        after_echo = self._echo_until_ms is not None and heard.audio_ms - self._echo_until_ms <= AFTERGLOW_MS
        if heard.probability < LIKE_SPEECH:
            return [*(self._silent() if after_echo else self._as_heard()), frame]
        if after_echo or self._searching(heard.audio_ms):
            self._doubtful.append(frame)
            return []
        return [*self._as_heard(), frame]

    def _share(self, audio_ms: int) -> float:
        while self._shares and self._shares[0][0] < audio_ms:
            self._shares.popleft()
        return self._shares[0][1] if self._shares and self._shares[0][0] == audio_ms else 0.0

    def _searching(self, audio_ms: int) -> bool:
        """Whether a reply is heard of which it is not known whether it echoes."""
        since_ms = self._doubtful[0][0] if self._doubtful else audio_ms
        if self._found_ms is not None:
            return audio_ms <= self._found_ms + MEASURED_AFTER_MS
        audible = self._active and self._now_ms() < self._plays_until_ms + MAX_DELAY_MS
        return audible and self._unexplained_ms < SETTLED_MS and audio_ms - since_ms < SEARCHED_MS

    def _silent(self) -> list[tuple[int, float]]:
        return [(audio_ms, 0.0) for audio_ms, _ in self._as_heard()]

    def _as_heard(self) -> list[tuple[int, float]]:
        frames = list(self._doubtful)
        self._doubtful.clear()
        return frames
