"""Hands-free: keeps the loudspeaker's echo from counting as the user's speech.

Microphone frames in which the reply's echo prevails count as silence. A frame that
sounds like speech while a reply may be audible, and is not recognised as echo, is held
back for a few frames while the gate searches for the echo. It then either counts as
silence together with the earlier held frames, or counts as speech at its original time.
The search takes no longer than the shortest speech that interrupts, so it does not
delay an interruption.
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
"""Share of echo in a frame above which the frame is not the user's speech."""
LIKE_SPEECH = 0.3
"""Probability of speech below which a frame is silence and is not searched for echo."""
AFTERGLOW_MS = 128
"""The speech detector has memory: for this long after the echo it may still report
speech.
"""
SEARCHED_MS = 192
LEAST_SEARCHED_MS = 96
"""Bounds of the time from the first held frame to the last: no longer than the shortest
speech that interrupts, and long enough to find an echo. Echoes 10 to 25 dB below the
reply, in rooms with a reverberation of 200 and 400 ms, are found within 64 to 96 ms.
"""
SEARCHED_FRAMES = SEARCHED_MS // FRAME_MS
"""Interval of the search, in frames, once frames that sound like speech are let
through. While frames are held back, every second one is searched, including the last:
it does not matter which of them identifies the others as echo.
"""
SETTLED_MS = MAX_DELAY_MS + 1_000
"""Once this much of a reply was heard without echo, it has none: no more frames are
held back during it.
"""
STOPS_WITHIN_MS = 250
"""A reply stays audible for this long after a client was told to stop it, because of
the network, the sound card and the room.
"""
JITTER_MS = 200
"""A microphone records continuously, but the network delivers unevenly. Frames are
therefore placed by their number, not by their arrival, unless the two differ by more
than this. A misplacement of one millisecond costs the coherence of 200 ms.
"""
ASTRAY_MS = 600
"""If frames arrive off their expected time for longer than this, the client had stopped
its microphone, and frames are placed anew. Frames that the network delayed arrive all
at once and are back in time sooner.
"""
REPLY_KEPT_MS = 30_000
"""Bound of the reply's audio that was made and not yet sent. The echo of audio beyond
it is not searched for.
"""


class EchoGate:
    """Compares one session's reply audio with its microphone frames and decides which
    frames are echo.
    """

    def __init__(self, now_ms: Callable[[], int], timeline: RingBuffer) -> None:
        """``now_ms`` is the session's clock; ``timeline`` keeps the microphone's newest
        audio.
        """
        self._now_ms = now_ms
        self._timeline = timeline
        self._searched_ms = SEARCHED_MS
        self.armed = False
        """Whether any reply audio has been made, so that there may be an echo."""
        self._detector = EchoDetector()
        self._converter = RateConverter(PCM_RATE_HZ)
        self._reply = 0
        self._made: deque[tuple[int, bytes]] = deque()
        self._made_bytes = 0
        self._plays_until_ms = 0
        self._echoes_from_ms = 0
        self._echoes_until_ms = 0
        """The session time between which the reply's echo can reach the microphone."""
        self._began_ms: int | None = None
        """The session time at which the connection's first sample was recorded,
        estimated from the arrival of its frames.
        """
        self._astray_ms = 0
        self._unexplained_ms = 0
        """Milliseconds of microphone audio during this reply in which no echo was
        found.
        """
        self._doubtful: deque[tuple[int, float]] = deque()
        self._run = 0
        """Number of consecutive frames that sound like speech and not like echo."""
        self._believed = False
        """Whether those frames are let through."""
        self._echo_until_ms: int | None = None

    def configure(self, min_interruption_ms: int) -> None:
        """Hold no frame back for longer than ``min_interruption_ms``, the shortest
        speech that interrupts.
        """
        whole_frames_ms = min_interruption_ms // FRAME_MS * FRAME_MS
        self._searched_ms = min(max(whole_frames_ms, LEAST_SEARCHED_MS), SEARCHED_MS)

    @property
    def searching(self) -> bool:
        """Whether frames are held back until the search for an echo has decided."""
        return bool(self._doubtful)

    # --- the reply --------------------------------------------------------------------

    def reply_made(self, reply: int, pcm: bytes, rate_hz: int, end_ms: int) -> None:
        """Add speech of ``reply`` (s16le mono) that ends at ``end_ms`` of the reply."""
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
        """Note that speech of ``reply`` up to ``end_ms`` was handed to the socket."""
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
        """Note that the reply was cut off."""
        self._made.clear()
        self._made_bytes = 0
        now_ms = self._now_ms()
        self._plays_until_ms = min(self._plays_until_ms, now_ms)
        self._echoes_until_ms = min(self._echoes_until_ms, now_ms + STOPS_WITHIN_MS + MAX_DELAY_MS)
        self._detector.stopped(now_ms + STOPS_WITHIN_MS)

    # --- the microphone ---------------------------------------------------------------

    def place(self, length_ms: int, now_ms: int) -> None:
        """Note that the newest ``length_ms`` of microphone audio arrived at ``now_ms``.
        It is judged later.
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
        """Accept a frame of silence that ends at ``audio_ms``: a shortcut for
        ``judge``, which would return only that frame. Returns False if frames are held
        back, so that ``judge`` must be called.
        """
        if self._doubtful:
            return False
        self._run, self._believed = 0, False
        self._may_echo(audio_ms)
        return True

    def judge(self, heard: FrameScore) -> list[tuple[int, float]]:
        """Judge the next frame. Returns the frames that are decided now, oldest first:
        the end of each and the probability that it is the user's speech.

        Every frame is returned once, in order.
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
        """Return whether a reply may be audible in the frame that ends at ``audio_ms``.
        If so, the frame has been passed to the echo detector.
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
        """Return the share of echo in a frame that sounds like speech. Searches for the
        echo's delay while no known echo explains the frame.
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
