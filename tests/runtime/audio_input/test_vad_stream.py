"""One session's microphone: its time line, what it keeps, and what it tells."""

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from tests.voice.sounds import RATE_HZ, REPLY, Samples, noise, speak, to_pcm
from voicechat.runtime.audio_input.echo_gate import EchoGate
from voicechat.runtime.audio_input.ring_buffer import BYTES_PER_MS, RingBuffer
from voicechat.runtime.audio_input.vad_stream import MISSING_MS, MOST_UNJUDGED_MS, TURN_S, VadStream
from voicechat.session.events import (
    DetectionDelayed,
    Event,
    SpeechStarted,
    SpeechStopped,
    TurnJudged,
)
from voicechat.session.types import TurnDetection
from voicechat.voice.detector import FrameScore, OnScore
from voicechat.voice.turn_model import TurnJudge

FRAME_MS = 32


class ScriptedEar:
    """Hears what the test says, and keeps the audio."""

    turn_open = False
    gather_ms = 0
    preferred_until_s = 0.0

    def __init__(self, on_score: OnScore) -> None:
        self.on_score = on_score
        self.audio_ms = 0
        self.pcm = b""
        self.closed = False

    def push(self, pcm: bytes) -> None:
        self.pcm += pcm

    def note_gap(self, at_ms: int) -> None:
        self.audio_ms = at_ms

    def close(self) -> None:
        self.closed = True

    def hears(self, probability: float, frames: int = 1) -> None:
        for _ in range(frames):
            self.audio_ms += FRAME_MS
            self.on_score(FrameScore(self.audio_ms, probability))


class Room:
    """A microphone, voice detection, their clock, and what was told."""

    def __init__(
        self,
        turn_judge: TurnJudge | None = None,
        min_interruption_ms: int = 200,
        background_db: float = 0.0,
    ) -> None:
        self.turn_judge = turn_judge
        self.background_db = background_db
        self.now_ms = 0
        self.arrived_ms = 0
        self.told: list[Event] = []
        self.rooms: list[bool] = []
        self.timeline = RingBuffer()
        self.echo = EchoGate(lambda: self.now_ms, self.timeline)
        self.echo.configure(min_interruption_ms)
        self.vad = VadStream(
            self,
            TurnDetection(prefix_padding_ms=100, min_interruption_ms=min_interruption_ms),
            self.timeline,
            self.echo,
            post=self.told.append,
            now_ms=lambda: self.now_ms,
            source=self,
        )

    def missing_ms(self) -> int:
        return self.now_ms - self.arrived_ms

    def settle_room(self) -> None:
        self.rooms.append(self.vad.full)

    def settle_gathering(self) -> None:
        """All audio is pushed as it is recorded."""

    def take_gathered(self) -> None:
        """All audio is pushed as it is recorded."""

    def open_stream(self, on_score: OnScore) -> ScriptedEar:
        self.ear = ScriptedEar(on_score)
        return self.ear

    def records(self, pcm: bytes) -> None:
        self.now_ms += len(pcm) // BYTES_PER_MS
        self.arrived_ms = self.now_ms
        self.timeline.push(pcm)
        self.vad.push(pcm)


def counted(from_ms: int, length_ms: int) -> bytes:
    """Audio in which every sample is the millisecond it stands at."""
    return np.repeat(
        np.arange(from_ms, from_ms + length_ms, dtype="<i2"), RATE_HZ // 1000
    ).tobytes()


async def test_times_are_those_of_the_connections_audio() -> None:
    """What was received before anybody listened, and what was skipped in between, has
    taken its time.
    """
    room = Room()
    room.timeline.skip(5_000 * BYTES_PER_MS)
    room.vad.begin()
    room.records(counted(0, 300))
    room.ear.hears(1.0, 4)
    room.ear.hears(0.0, 3)
    assert room.told == [SpeechStarted(5_000, 300), SpeechStopped(5_128, 172)]
    room.timeline.skip(2_000 * BYTES_PER_MS)
    room.vad.begin()
    room.records(counted(0, 300))
    room.ear.hears(1.0, 4)
    assert room.told[2:] == [SpeechStarted(7_300, 300)]


async def test_frames_begin_at_whole_milliseconds_wherever_listening_begins() -> None:
    room = Room()
    room.timeline.skip(5_000 * BYTES_PER_MS + 10)
    room.vad.begin()
    room.records(counted(0, 40))
    assert room.ear.pcm == counted(0, 40)[BYTES_PER_MS - 10 :]


async def test_speech_is_told_with_its_padding_and_its_age() -> None:
    room = Room()
    room.records(counted(0, 1_000))
    room.ear.hears(0.0, 10)
    room.ear.hears(0.9, 2)
    assert room.told == [SpeechStarted(320 - 100, 1_000 - 320)]


async def test_a_click_is_no_speech() -> None:
    room = Room()
    room.records(counted(0, 1_000))
    room.ear.hears(0.9)
    room.ear.hears(0.0, 10)
    assert room.told == []


async def test_a_closed_stream_hears_nothing() -> None:
    room = Room()
    room.vad.close()
    assert room.ear.closed


class ScriptedJudge(TurnJudge):
    """Remembers what it was asked; tells when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, Callable[[float], None]]] = []

    def ask(self, pcm: bytes, tell: Callable[[float], None]) -> None:
        self.asked.append((pcm, tell))


def hears(room: Room, probability: float, length_ms: int) -> None:
    for _ in range(length_ms // FRAME_MS):
        room.records(bytes(FRAME_MS * BYTES_PER_MS))
        room.ear.hears(probability)


async def test_at_each_stop_the_turn_so_far_is_judged() -> None:
    judge = ScriptedJudge()
    room = Room(judge)
    hears(room, 0.05, 960)
    hears(room, 0.95, 640)
    hears(room, 0.05, 192)
    [(first, _)] = judge.asked
    assert len(first) == (100 + 640 + 96) * BYTES_PER_MS, (
        "with its padding, and the silence in which it was noticed"
    )
    hears(room, 0.95, 640)
    hears(room, 0.05, 192)
    assert len(judge.asked[1][0]) == (100 + 640 + 192 + 640 + 96) * BYTES_PER_MS
    judge.asked[1][1](0.75)
    assert room.told[-1] == TurnJudged(0.75)


async def test_of_a_long_turn_the_last_eight_seconds_are_judged() -> None:
    judge = ScriptedJudge()
    room = Room(judge)
    hears(room, 0.95, 9_600)
    hears(room, 0.05, 192)
    assert len(judge.asked[0][0]) == 8_000 * BYTES_PER_MS


async def test_after_a_reply_another_turn_is_judged() -> None:
    judge = ScriptedJudge()
    room = Room(judge)
    hears(room, 0.95, 640)
    hears(room, 0.05, 192)
    room.vad.replied()
    hears(room, 0.95, 320)
    hears(room, 0.05, 192)
    assert len(judge.asked[1][0]) == (100 + 320 + 96) * BYTES_PER_MS


async def test_a_judgement_is_not_told_once_speech_has_gone_on_or_the_session_ended() -> None:
    judge = ScriptedJudge()
    room = Room(judge)
    hears(room, 0.95, 640)
    hears(room, 0.05, 192)
    hears(room, 0.95, 640)
    judge.asked[0][1](0.9)
    hears(room, 0.05, 192)
    room.vad.close()
    judge.asked[1][1](0.9)
    assert not any(isinstance(event, TurnJudged) for event in room.told)


class Loudspeaker:
    """Plays a reply that is sent 1.5 s ahead into the room's microphone, late, beside
    what else sounds there.
    """

    def __init__(self, room: Room, *, delay_ms: int = 120, level_db: float = -12) -> None:
        self.room = room
        reply = speak(REPLY)
        for begin_ms in range(0, len(reply) * 1000 // RATE_HZ, 100):
            samples = reply[begin_ms * RATE_HZ // 1000 :][: RATE_HZ // 10]
            room.echo.reply_made(1, to_pcm(samples), RATE_HZ, begin_ms + 100)
        echo = np.concatenate((np.zeros(delay_ms * RATE_HZ // 1000), reply)) * 10 ** (level_db / 20)
        self.sound = echo + noise(60_000, -70)[: len(echo)]

    def plays(
        self,
        from_ms: int,
        to_ms: int,
        probability: float | None = None,
        user: Samples | None = None,
    ) -> None:
        """Record frame by frame; the detector says ``probability``, or takes every
        sound for speech.
        """
        for at_ms in range(from_ms, to_ms, FRAME_MS):
            self.room.echo.reply_sent(1, at_ms + 1_500)
            sound = self.sound[at_ms * RATE_HZ // 1000 : (at_ms + FRAME_MS) * RATE_HZ // 1000]
            if user is not None:
                sound = sound + np.resize(user[(at_ms - from_ms) * RATE_HZ // 1000 :], len(sound))
            self.room.records(to_pcm(sound))
            loud = float(np.sqrt((sound**2).mean())) > 60
            self.room.ear.hears(probability if probability is not None else 0.95 if loud else 0.05)


async def test_the_echo_of_the_reply_is_not_told_even_before_its_delay_is_known() -> None:
    room = Room()
    Loudspeaker(room).plays(0, 7_000)
    assert room.told == []


@pytest.mark.parametrize("delay_ms", [10, 470])
async def test_the_earliest_and_the_latest_echo_is_known_too(delay_ms: int) -> None:
    room = Room()
    Loudspeaker(room, delay_ms=delay_ms).plays(0, 4_000)
    assert room.told == []


async def test_what_was_said_before_a_reply_and_is_judged_after_it_began_is_not_kept_back() -> None:
    """The frames of two tenths of a second, that the detector lags behind."""
    room = Room()
    room.records(to_pcm(speak("wait, that is not what I asked")[:RATE_HZ]))
    room.echo.reply_made(1, to_pcm(speak(REPLY)), RATE_HZ, 10_000)
    room.echo.reply_sent(1, 10_000)
    room.ear.audio_ms = 800
    room.ear.hears(1.0, 2)
    assert [type(event) for event in room.told] == [SpeechStarted]


@pytest.mark.parametrize("jitter_ms", [1, 30])
async def test_a_clock_that_trembles_does_not_let_the_echo_through(jitter_ms: int) -> None:
    room, random = Room(), np.random.default_rng(1)
    loudspeaker = Loudspeaker(room)
    for at_ms in range(0, 4_000, FRAME_MS):
        late_ms = int(random.integers(0, jitter_ms + 1))
        room.now_ms += late_ms
        loudspeaker.plays(at_ms, at_ms + FRAME_MS)
        room.now_ms -= late_ms
    assert room.told == []


async def test_the_user_over_the_echo_is_told_as_of_when_they_began() -> None:
    room = Room()
    loudspeaker = Loudspeaker(room)
    loudspeaker.plays(0, 1_984)
    loudspeaker.plays(1_984, 2_624, user=speak("wait, that is not what I asked"))
    started = room.told[0]
    assert isinstance(started, SpeechStarted)
    assert 1_984 - 100 <= started.at_ms <= 1_984 + 200


async def test_what_the_detector_still_hears_after_the_echo_is_not_told() -> None:
    room = Room()
    loudspeaker = Loudspeaker(room)
    loudspeaker.plays(0, 1_984)
    for _ in range(3):
        room.records(bytes(FRAME_MS * BYTES_PER_MS))
        room.ear.hears(0.9)
    room.ear.hears(0.1, 10)
    assert room.told == []


@pytest.mark.parametrize(("min_ms", "kept_ms"), [(0, 96), (128, 128), (200, 192), (1_000, 192)])
async def test_where_nothing_echoes_speech_is_kept_back_for_a_bounded_time_once(
    min_ms: int, kept_ms: int
) -> None:
    room = Room(min_interruption_ms=min_ms)
    loudspeaker = Loudspeaker(room, level_db=-200)
    loudspeaker.plays(0, 320, probability=0.0)
    loudspeaker.plays(320, 960, probability=0.95)
    [started] = room.told
    assert isinstance(started, SpeechStarted)
    assert started.at_ms == 320 - 100
    assert kept_ms <= started.ago_ms <= kept_ms + FRAME_MS, (
        "no longer than the shortest speech that interrupts"
    )
    loudspeaker.plays(960, 2_976, probability=0.0)
    loudspeaker.plays(2_976, 3_040, probability=0.95)
    assert isinstance(room.told[-1], SpeechStarted)
    assert room.told[-1].ago_ms <= 96, "it is known by now that there is no echo"


async def test_a_microphone_that_was_stopped_is_placed_anew() -> None:
    room = Room()
    room.records(bytes(3 * FRAME_MS * BYTES_PER_MS))
    room.ear.hears(0.0, 3)
    room.now_ms += 5_000
    loudspeaker = Loudspeaker(room)
    loudspeaker.plays(0, 640, probability=0.0)  # so long until it is noticed
    loudspeaker.plays(640, 7_000)
    assert room.told == []


async def speaks_and_then(room: Room, length_ms: int) -> None:
    """Speak in real time; the session's clock is the loop's."""
    loop = asyncio.get_running_loop()
    began_ms = loop.time() * 1000 - room.now_ms
    for _ in range(length_ms // FRAME_MS):
        await asyncio.sleep(FRAME_MS / 1000)
        room.now_ms = round(loop.time() * 1000 - began_ms) - FRAME_MS
        hears(room, 0.95, FRAME_MS)


async def test_audio_that_does_not_come_any_more_is_silence() -> None:
    room = Room()
    await speaks_and_then(room, 640)
    room.now_ms += MISSING_MS
    await asyncio.sleep(2 * MISSING_MS / 1000)
    assert room.told == [SpeechStarted(0, 64), SpeechStopped(640, MISSING_MS)]
    hears(room, 0.95, 64)
    assert room.told[2:] == [SpeechStarted(640, 64)], "and what comes then begins anew"
    room.vad.close()


async def test_audio_that_came_and_is_not_judged_yet_is_not_missing() -> None:
    room = Room()
    await speaks_and_then(room, 640)
    room.records(bytes(FRAME_MS * BYTES_PER_MS))
    room.now_ms += 5 * MISSING_MS
    await asyncio.sleep(5 * MISSING_MS / 1000)
    assert len(room.told) == 1
    room.ear.hears(0.95)
    await asyncio.sleep(MISSING_MS / 1000)
    assert isinstance(room.told[-1], SpeechStopped)
    room.vad.close()


async def test_a_process_that_was_held_up_reads_its_sockets_before_it_misses_audio() -> None:
    room = Room()
    await speaks_and_then(room, 640)
    room.now_ms += 5 * MISSING_MS
    await asyncio.sleep((64 + MISSING_MS - 640) / 1000 + 0.05)
    room.records(bytes(FRAME_MS * BYTES_PER_MS))
    room.ear.hears(0.95)
    await asyncio.sleep(MISSING_MS / 2000)
    assert [type(event) for event in room.told] == [SpeechStarted]
    room.vad.close()


async def test_it_is_full_while_it_is_far_behind_so_that_the_beginning_of_speech_is_kept() -> None:
    room = Room()
    room.records(counted(0, MOST_UNJUDGED_MS))
    assert not room.vad.full
    room.records(counted(0, 20))
    assert room.vad.full
    room.ear.hears(0.0, (MOST_UNJUDGED_MS // 2 + 20) // FRAME_MS)
    assert room.vad.full
    room.ear.hears(0.0, 2)
    assert not room.vad.full
    assert room.rooms == [True, False]


async def test_how_much_is_not_judged_after_a_stop_is_told_when_it_is_much() -> None:
    room = Room()
    room.records(counted(0, 1_000))
    room.ear.hears(1.0, 4)
    room.ear.hears(0.0, 3)
    stopped = room.told.index(SpeechStopped(128, 872))
    assert room.told[stopped - 1] == DetectionDelayed(1_000 - 7 * FRAME_MS)
    room.told.clear()
    room.records(counted(0, 40))
    assert room.told == [], "not much has changed"
    room.records(counted(0, 40))
    assert room.told == [DetectionDelayed(1_080 - 7 * FRAME_MS)]
    room.ear.hears(0.0, (1_080 - 7 * FRAME_MS) // FRAME_MS)
    assert room.told[-1] == DetectionDelayed(0)
    room.told.clear()
    room.records(counted(0, 200))
    room.ear.hears(1.0, 3)
    assert room.told[-2] == DetectionDelayed(0), "what follows is told by the speech"
    assert isinstance(room.told[-1], SpeechStarted)


async def test_while_the_loop_is_late_what_is_not_judged_is_told_before_decisions_only() -> None:
    room = Room()
    room.records(counted(0, 1_000))
    room.ear.hears(1.0, 4)
    room.ear.hears(0.0, 27)
    room.vad.note_unread()
    room.told.clear()
    for _ in range(10):
        room.records(counted(0, 20))
    assert room.told == [], "no frame is told"
    room.vad.note_unread()
    assert room.told == [DetectionDelayed(1_200 - 31 * FRAME_MS)]
    room.vad.note_unread()
    assert len(room.told) == 1, "nothing has changed"
    room.ear.hears(0.0, 6)
    assert room.told[-1] == DetectionDelayed(0), "all is judged: the turn may end"


async def test_while_the_loop_is_late_what_is_not_judged_is_told_during_speech_too() -> None:
    """A turn may also end because its words do not change: by the audio's time."""
    room = Room()
    room.records(counted(0, 1_000))
    room.ear.hears(1.0, 4)
    room.told.clear()
    room.vad.note_unread()
    assert room.told == [DetectionDelayed(1_000 - 4 * FRAME_MS)]
    room.ear.hears(1.0, 27)
    assert room.told[-1] == DetectionDelayed(0), "an interruption is not late for it"


async def test_nothing_is_told_of_a_pause_once_the_turn_has_ended() -> None:
    room = Room()
    room.records(counted(0, 1_000))
    room.ear.hears(1.0, 4)
    assert room.ear.turn_open
    room.ear.hears(0.0, 3)
    room.vad.end_turn()
    assert room.told[-1] == DetectionDelayed(0)
    assert not room.ear.turn_open, "others are waited for now"
    room.told.clear()
    room.records(counted(0, 500))
    room.vad.note_unread()
    assert room.told == []


async def test_silent_is_who_has_not_spoken_or_been_answered_lately() -> None:
    room = Room()
    assert room.vad.silent
    room.records(counted(0, 300))
    room.ear.hears(1.0)
    assert not room.vad.silent, "somebody may be beginning to speak"
    room.ear.hears(0.0)
    assert room.vad.silent
    room.ear.hears(1.0, 4)
    room.ear.hears(0.0, 3)
    await asyncio.sleep(TURN_S - 0.1)
    assert not room.vad.silent
    await asyncio.sleep(0.2)
    assert room.vad.silent
    room.vad.replied()
    assert not room.vad.silent


async def test_a_late_loop_does_not_take_audio_that_it_has_not_read_for_silence() -> None:
    room = Room()
    room.records(counted(0, 4 * FRAME_MS))
    room.ear.hears(1.0, 4)
    room.told.clear()
    for _ in range(30):
        room.vad.note_unread()
        room.now_ms += 100
        await asyncio.sleep(0.1)
    assert {type(event) for event in room.told} == {DetectionDelayed}
    room.told.clear()
    for _ in range(4):
        room.now_ms += 1_000
        await asyncio.sleep(1)
    assert [type(event) for event in room.told] == [SpeechStopped]
