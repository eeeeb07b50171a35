"""The reply comes back softer, later and with a room around it: it is known for what it
is, the user is not.
"""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.voice.sounds import (
    OBJECTION,
    RATE_HZ,
    REPLY,
    Samples,
    in_a_room,
    loudness,
    noise,
    speak,
    to_pcm,
)
from voicechat.audio.wav import read_wav
from voicechat.voice.echo import EchoDetector
from voicechat.voice.silero import FRAME_BYTES, FRAME_MS, FRAME_SAMPLES

SETTLED_MS = 1_000
"""By then the delay is known; it stays known from reply to reply."""
USER_FROM_MS = 2_500


def shares(
    reply: Samples,
    microphone: Samples,
    detector: EchoDetector | None = None,
    *,
    from_ms: int = 1_000,
) -> NDArray[np.float64]:
    """Play the reply 1.5 s ahead, as the server does, and give the share of echo of
    each frame of the microphone.
    """
    detector = detector or EchoDetector()
    played, heard = to_pcm(reply), to_pcm(microphone)
    given = 0
    result: list[float] = []
    for index in range(len(heard) // FRAME_BYTES):
        while given < len(played) and given // 32 < index * FRAME_MS + 1_500:
            detector.played(played[given : given + 3_200], from_ms + given // 32)
            given += 3_200
        frame = heard[index * FRAME_BYTES : (index + 1) * FRAME_BYTES]
        result.append(listen(detector, frame, from_ms + (index + 1) * FRAME_MS))
    return np.array(result)


def listen(detector: EchoDetector, frame: bytes, end_ms: int) -> float:
    """The share of echo in a frame; another delay is looked for where little of it is
    echo.
    """
    detector.heard(frame, end_ms)
    share = detector.share()
    return share if share > 0.5 else max(share, detector.find())


def echo_of(reply: Samples, level_db: float, delay_ms: int, *, room: bool = True) -> Samples:
    """The reply as the microphone has it, over a faint noise."""
    late = np.concatenate(
        (np.zeros(delay_ms * RATE_HZ // 1000), in_a_room(reply) if room else reply)
    )
    return late * 10 ** (level_db / 20) + noise(len(late) * 1000 // RATE_HZ + 1, -65)[: len(late)]


def loud(samples: Samples, frames: int) -> NDArray[np.bool_]:
    """Frames that hold more than a tenth of the usual power."""
    whole = np.pad(samples, (0, max(0, frames * FRAME_SAMPLES - len(samples))))[
        : frames * FRAME_SAMPLES
    ]
    level = np.sqrt((whole.reshape(frames, FRAME_SAMPLES) ** 2).mean(axis=1))
    above: NDArray[np.bool_] = level > 0.3 * loudness(samples)
    return above


def with_user(microphone: Samples, user: Samples, level: float) -> tuple[Samples, Samples]:
    """Let the user, as loud as ``level``, begin at `USER_FROM_MS`; returns the
    microphone and the user alone.
    """
    begin = USER_FROM_MS * RATE_HZ // 1000
    alone = np.zeros_like(microphone)
    spoken = user[: len(microphone) - begin] * (level / loudness(user))
    alone[begin : begin + len(spoken)] = spoken
    return microphone + alone, alone


@pytest.mark.parametrize("level_db", [-10, -18, -25])
@pytest.mark.parametrize("delay_ms", [50, 130, 250])
@pytest.mark.parametrize("room", [False, True])
def test_the_reply_heard_again_is_echo(level_db: float, delay_ms: int, room: bool) -> None:
    reply = speak(REPLY)
    microphone = echo_of(reply, level_db, delay_ms, room=room)
    detector = EchoDetector()
    share = shares(reply, microphone, detector)
    settled = loud(microphone, len(share)) & (np.arange(len(share)) * FRAME_MS >= SETTLED_MS)
    assert (share[settled] > 0.5).mean() >= 0.98
    assert detector.delay_ms == pytest.approx(delay_ms, abs=1)


def test_a_share_is_the_same_whether_it_is_asked_for_of_each_frame_or_of_some() -> None:
    reply = speak(REPLY)
    microphone = (
        echo_of(reply, -18, 130)
        + noise(len(reply) * 1000 // RATE_HZ + 1_000, -35)[: len(reply) + 130 * 16]
    )
    each, some = EchoDetector(), EchoDetector()
    heard = to_pcm(microphone)
    for detector in (each, some):
        shares(reply, microphone[: RATE_HZ * 2], detector)
    for index in range(62, 120):
        for detector in (each, some):
            detector.played(
                to_pcm(reply)[: index * FRAME_BYTES][-FRAME_BYTES:], 5_000 + index * FRAME_MS
            )
            detector.heard(
                heard[index * FRAME_BYTES : (index + 1) * FRAME_BYTES], 5_130 + index * FRAME_MS
            )
        share = each.share()
        if index % 9 == 0:
            assert some.share() == pytest.approx(share, abs=1e-3)
    assert each.delay_ms is not None


@pytest.mark.parametrize("level_db", [-10, -18, -25])
@pytest.mark.parametrize("delay_ms", [50, 250])
def test_a_user_who_talks_over_the_echo_is_heard(level_db: float, delay_ms: int) -> None:
    reply = speak(REPLY)
    echo = echo_of(reply, level_db, delay_ms)
    microphone, user = with_user(echo, speak(OBJECTION, "en-us+f3"), loudness(reply))
    share = shares(reply, microphone)
    talking = loud(user, len(share))
    assert (share[talking] > 0.5).mean() <= 0.1
    first_ms = np.argmax(talking) * FRAME_MS
    within_100_ms = share[first_ms // FRAME_MS : first_ms // FRAME_MS + 4]
    assert (within_100_ms < 0.5).any()


def test_who_wears_headphones_is_never_echo() -> None:
    reply = speak(REPLY)
    user = np.concatenate([speak(OBJECTION)] * 3)[: len(reply)]
    detector = EchoDetector()
    assert (shares(reply, user, detector) > 0.5).mean() <= 0.02
    assert detector.delay_ms is None, (
        "the highest peak of what has nothing in common is not believed"
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_first_frame_of_another_sound_is_not_taken_for_echo(seed: int) -> None:
    reply = speak(REPLY)
    detector = EchoDetector()
    shares(reply[: 3 * RATE_HZ], echo_of(reply, -15, 130)[: 3 * RATE_HZ], detector)
    end_ms = 1_000 + 3 * RATE_HZ // FRAME_SAMPLES * FRAME_MS
    for _ in range(14):
        end_ms += FRAME_MS
        listen(detector, to_pcm(noise(FRAME_MS, -75, seed)), end_ms)
    burst = to_pcm(noise(FRAME_MS, -20, seed))
    assert listen(detector, burst, end_ms + FRAME_MS) == 0.0


def test_the_delay_is_known_from_the_reply_before() -> None:
    reply = speak(REPLY)
    detector = EchoDetector()
    shares(reply, echo_of(reply, -15, 130), detector)
    again = speak(OBJECTION)
    microphone = echo_of(again, -15, 130)
    share = shares(again, microphone, detector, from_ms=60_000)
    sounding = np.flatnonzero(loud(microphone, len(share)))
    assert (share[sounding[4:]] > 0.5).mean() >= 0.9


def test_without_a_reply_nothing_is_echo() -> None:
    detector = EchoDetector()
    pcm = to_pcm(speak(OBJECTION))
    frames = [pcm[at : at + FRAME_BYTES] for at in range(0, FRAME_BYTES * 40, FRAME_BYTES)]
    assert {
        listen(detector, frame, index * FRAME_MS) for index, frame in enumerate(frames, start=1)
    } == {0.0}


def test_what_was_cut_off_is_not_expected_any_more() -> None:
    reply = speak(REPLY)
    detector = EchoDetector()
    microphone = echo_of(reply, -15, 130)
    detector.played(to_pcm(reply), 1_000)
    detector.stopped(1_000)
    heard = to_pcm(microphone)
    cut = [
        listen(
            detector,
            heard[index * FRAME_BYTES : (index + 1) * FRAME_BYTES],
            1_000 + (index + 1) * FRAME_MS,
        )
        for index in range(60)
    ]
    assert max(cut) < 0.5


def test_a_frame_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="1024"):
        EchoDetector().heard(bytes(640), 32)


@pytest.mark.parametrize("level_db", [-10, -25])
def test_people_too(recordings: Path, level_db: float) -> None:
    def read(name: str) -> Samples:
        return np.frombuffer(read_wav((recordings / f"{name}.wav").read_bytes()), "<i2").astype(
            np.float64
        )

    reply = read("austen-0870")
    echo = echo_of(reply, level_db, 200)
    share = shares(reply, echo)
    settled = loud(echo, len(share)) & (np.arange(len(share)) * FRAME_MS >= SETTLED_MS)
    assert (share[settled] > 0.5).mean() >= 0.95
    microphone, user = with_user(echo, read("austen-0880"), loudness(reply))
    share = shares(reply, microphone)
    assert (share[loud(user, len(share))] > 0.5).mean() <= 0.12
