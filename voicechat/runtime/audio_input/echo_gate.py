"""Hands-free: what the loudspeaker says is not speech of the user.

Frames of the microphone in which the echo of the reply prevails count as silence. A
frame that sounds like speech while a reply may be heard, and is not known for its echo,
is kept back for some frames, in which its echo is looked for: then it is dropped with
those before it, or it counts, at the time at which it was spoken. That takes no longer
than the shortest speech that interrupts, so that an interruption is not late for it.
"""

from collections import deque
from collections.abc import Callable

from voicechat.audio.resample import RateConverter
from voicechat.providers.interfaces import PCM_RATE_HZ
from voicechat.runtime.audio_input.ring_buffer import BYTES_PER_MS, RingBuffer
from voicechat.voice.detector import FrameScore
from voicechat.voice.echo import MAX_DELAY_MS, EchoDetector
from voicechat.voice.silero import FRAME_BYTES, FRAME_MS

PREVAILS = 0.5
"""Share of echo in a frame from which it is not the user's speech."""
LIKE_SPEECH = 0.3
"""Probability of speech below which a frame needs no thought."""
AFTERGLOW_MS = 128
"""The detector of speech remembers: so long after the echo it may still hear speech in
the room's last sound.
"""
SEARCHED_MS = 192
LEAST_SEARCHED_MS = 96
"""From the first frame that is kept back to the last: no longer than the shortest
speech that interrupts, and long enough to find an echo in. Speech 10 to 25 dB down and
in rooms of 200 and 400 ms is found within 64 to 96 ms.
"""
SEARCHED_FRAMES = SEARCHED_MS // FRAME_MS
"""Of what sounds like speech and is let through, the echo is looked for each time after
so many. Of what is kept back it is at every second frame, the last of them too: which
of them knows the others for echo makes no difference.
"""
SETTLED_MS = MAX_DELAY_MS + 1_000
"""Of a reply in which no echo was found: it has none, and nothing more is kept back for
it.
"""
STOPS_WITHIN_MS = 250
"""A client that is told to be silent is still heard for so long: the network, its sound
card, the room.
"""
JITTER_MS = 200
"""A microphone is continuous and the network is not: its frames are placed by their
number, not by their arrival, as long as they do not arrive so much earlier or later. A
millisecond of misplacement costs the coherence of 200 ms.
"""
ASTRAY_MS = 600
"""Frames that have arrived for so long at another time than expected: the client had
stopped its microphone. What a network held up arrives all at once, and is in its time
again.
"""
REPLY_KEPT_MS = 30_000
"""Speech of a reply that has been made and not been sent yet; of more, the echo is not
looked for.
"""


class EchoGate:
    """One session's echo: the reply's samples on their way to the loudspeaker, the
    microphone's frames, the verdict.
    """

    def __init__(self, now_ms: Callable[[], int], timeline: RingBuffer) -> None:
        """``now_ms`` is the session's clock; ``timeline`` keeps the microphone's newest
        audio.
        """
        self._now_ms = now_ms
        self._timeline = timeline
        self._searched_ms = SEARCHED_MS
        self.armed = False
        """A reply has been made: there may be an echo from now on."""
        self._detector = EchoDetector()
        self._converter = RateConverter(PCM_RATE_HZ)
        self._reply = 0
        self._made: deque[tuple[int, bytes]] = deque()
        self._made_bytes = 0
        self._plays_until_ms = 0
        self._echoes_from_ms = 0
        self._echoes_until_ms = 0
        """No sound of the reply can come into the microphone before the one or after
        the other.
        """
        self._began_ms: int | None = None
        """When the first sample of the connection's audio was recorded, by the arrival
        of its frames.
        """
        self._astray_ms = 0
        self._unexplained_ms = 0
        """How much of the microphone was heard during this reply without any echo in
        it.
        """
        self._doubtful: deque[tuple[int, float]] = deque()
        self._run = 0
        """Frames in a row that sound like speech and not like echo."""
        self._believed = False
        """They were let through."""
        self._echo_until_ms: int | None = None

    def configure(self, min_interruption_ms: int) -> None:
        """Keep no frame back for longer than speech must last to interrupt:
        ``min_interruption_ms``.
        """
        whole_frames_ms = min_interruption_ms // FRAME_MS * FRAME_MS
        self._searched_ms = min(max(whole_frames_ms, LEAST_SEARCHED_MS), SEARCHED_MS)

    # --- the reply --------------------------------------------------------------------

    def reply_made(self, reply: int, pcm: bytes, rate_hz: int, end_ms: int) -> None:
        """Speech of ``reply`` was made, s16le mono, up to ``end_ms`` of the reply."""
        self.armed = True
        if reply != self._reply:
            self._reply = reply
            self._made.clear()
            self._made_bytes = 0
            self._unexplained_ms = 0
        converted = self._converter.push_audio(pcm, rate_hz)
        if self._made_bytes <= REPLY_KEPT_MS * BYTES_PER_MS:
            self._made.append((end_ms, converted))
            self._made_bytes += len(converted)

    def reply_sent(self, reply: int, end_ms: int) -> None:
        """Speech of ``reply`` up to ``end_ms`` was handed to the socket."""
        while reply == self._reply and self._made and self._made[0][0] <= end_ms:
            _, pcm = self._made.popleft()
            self._made_bytes -= len(pcm)
            at_ms = max(self._now_ms(), self._plays_until_ms)
            if at_ms > self._echoes_until_ms:
                self._echoes_from_ms = at_ms
            self._detector.played(pcm, at_ms)
            self._plays_until_ms = at_ms + len(pcm) // BYTES_PER_MS
            self._echoes_until_ms = self._plays_until_ms + MAX_DELAY_MS

    def reply_stopped(self) -> None:
        """The reply was cut off."""
        self._made.clear()
        self._made_bytes = 0
        now_ms = self._now_ms()
        self._plays_until_ms = min(self._plays_until_ms, now_ms)
        self._echoes_until_ms = min(self._echoes_until_ms, now_ms + STOPS_WITHIN_MS + MAX_DELAY_MS)
        self._detector.stopped(now_ms + STOPS_WITHIN_MS)

    # --- the microphone ---------------------------------------------------------------

    def place(self, length_ms: int, now_ms: int) -> None:
        """The newest ``length_ms`` of the microphone's audio arrived at ``now_ms``; it
        is judged a little later.
        """
        began_ms = now_ms - self._timeline.end_bytes // BYTES_PER_MS
        if self._began_ms is None:
            self._began_ms = began_ms
        elif -JITTER_MS <= began_ms - self._began_ms <= JITTER_MS:
            self._astray_ms = 0
        else:
            self._astray_ms += length_ms
            if self._astray_ms > ASTRAY_MS:
                self._began_ms, self._astray_ms, self._unexplained_ms = began_ms, 0, 0

    def take_silence(self, audio_ms: int) -> bool:
        """Take a frame of silence that ends at ``audio_ms``, as ``judge`` does, which
        would give that frame alone. False: frames are kept back, so ``judge`` must
        take it.
        """
        if self._doubtful:
            return False
        self._run, self._believed = 0, False
        self._may_echo(audio_ms)
        return True

    def judge(self, heard: FrameScore) -> list[tuple[int, float]]:
        """Give the frames that are certain now, oldest first: where each ends, and how
        surely it is the user's speech.

        Frames come out in the order in which they went in, each once.
        """
        frame = (heard.audio_ms, heard.probability)
        if not self._may_echo(heard.audio_ms):
            self._run, self._believed = 0, False
            return [*self._as_heard(), frame] if self._doubtful else [frame]
        after_echo = (
            self._echo_until_ms is not None and heard.audio_ms - self._echo_until_ms <= AFTERGLOW_MS
        )
        if heard.probability < LIKE_SPEECH:
            self._run, self._believed = 0, False
            return [*(self._silent() if after_echo else self._as_heard()), frame]
        if self._echo_share() > PREVAILS:
            self._echo_until_ms = heard.audio_ms
            self._run, self._believed, self._unexplained_ms = 0, False, 0
            return [*self._silent(), (heard.audio_ms, 0.0)]
        self._doubtful.append(frame)
        kept_ms = heard.audio_ms - self._doubtful[0][0]
        settled = self._unexplained_ms >= SETTLED_MS
        if not (self._believed or settled or kept_ms >= self._searched_ms) or after_echo:
            return []
        self._believed = True
        return self._as_heard()

    def _may_echo(self, audio_ms: int) -> bool:
        """Whether a reply may be heard in the frame that ends at ``audio_ms``; then the
        detector has heard it.
        """
        end_ms = (self._began_ms or 0) + audio_ms
        if end_ms <= self._echoes_from_ms or end_ms - FRAME_MS >= self._echoes_until_ms:
            return False
        frame = self._timeline.before(audio_ms, FRAME_BYTES)
        if not frame:
            return False
        self._detector.heard(frame, end_ms)
        if end_ms < self._plays_until_ms:
            self._unexplained_ms += FRAME_MS
        return True

    def _echo_share(self) -> float:
        """Of a frame that sounds like speech; its delay is looked for while nothing
        explains it.
        """
        share = self._detector.share()
        if share <= PREVAILS:
            self._run += 1
            # With a known delay, the first frame after a silence is explained together
            # with the second.
            first = 1 if self._detector.delay_ms is None else 2
            left = self._searched_ms // FRAME_MS + 1 - self._run
            if self._run >= first and (
                left % 2 == 0 if left >= 0 else self._run % SEARCHED_FRAMES == 0
            ):
                share = self._detector.find()
        return share

    def _silent(self) -> list[tuple[int, float]]:
        return [(audio_ms, 0.0) for audio_ms, _ in self._as_heard()]

    def _as_heard(self) -> list[tuple[int, float]]:
        frames = list(self._doubtful)
        self._doubtful.clear()
        return frames
