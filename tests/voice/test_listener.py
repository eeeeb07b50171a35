"""No stream hears another: the probabilities of each are those of the stream alone,
whatever shares its calls.

That what is in other rows of one call has no influence at all is in
``test_silero_network``.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.voice.sounds import OBJECTION, REPLY, noise, silence, speak, to_pcm
from voicechat.voice.listener import Listener, StreamFrames, score
from voicechat.voice.silero import FRAME_BYTES, FRAME_MS, MOST_FRAMES, VoiceModel, find_model
from voicechat.voice.silero_network import open_silero

STREAMS = 6


@cache
def model() -> VoiceModel:
    return open_silero(find_model())


@cache
def frames_of(stream: int) -> tuple[bytes, ...]:
    """About 2.5 s of speech, noise and silence; each stream another."""
    spoken = speak(REPLY if stream % 2 else OBJECTION)[stream * 4_000 : stream * 4_000 + 20_000]
    pcm = (
        to_pcm(silence(100 * stream))
        + to_pcm(spoken)
        + to_pcm(silence(700))
        + to_pcm(noise(300, -30, stream))
    )
    whole = len(pcm) // FRAME_BYTES * FRAME_BYTES
    return tuple(pcm[at : at + FRAME_BYTES] for at in range(0, whole, FRAME_BYTES))


@cache
def alone(stream: int) -> tuple[float, ...]:
    listener = Listener()
    return tuple(
        score(model(), [StreamFrames(listener, (frame,))]).probabilities[0][0]
        for frame in frames_of(stream)
    )


def rounds() -> st.SearchStrategy[list[dict[int, int]]]:
    """How many frames each stream brings to each call; a stream that comes late has
    joined, one that stays away has left.
    """
    frames = st.integers(1, MOST_FRAMES)
    return st.lists(st.dictionaries(st.integers(0, STREAMS - 1), frames), min_size=40, max_size=80)


@settings(max_examples=30, deadline=None)
@given(rounds())
def test_each_stream_is_judged_as_if_alone(schedule: list[dict[int, int]]) -> None:
    listeners = [Listener() for _ in range(STREAMS)]
    heard: list[list[float]] = [[] for _ in range(STREAMS)]
    for present in schedule:
        turns = {
            stream: StreamFrames(listeners[stream], frames_of(stream)[begin : begin + frames])
            for stream, frames in present.items()
            if (begin := len(heard[stream])) < len(frames_of(stream))
        }
        for stream, probabilities in zip(
            turns, score(model(), list(turns.values())).probabilities, strict=True
        ):
            heard[stream] += probabilities
    for stream in range(STREAMS):
        # Not to the bit: how sums are rounded goes with how many streams share a call,
        # and a stream remembers it.
        assert heard[stream] == pytest.approx(alone(stream)[: len(heard[stream])], abs=1e-4)


def test_the_listener_carries_state_and_context_as_the_model_wants_them() -> None:
    """The model's own calling convention, written out: 64 samples of the frame before,
    and the state it returned.
    """
    pcm = to_pcm(speak(OBJECTION)[:24_000])
    samples = np.frombuffer(pcm, "<i2")
    padded = np.concatenate((np.zeros(64, np.int16), samples))
    states = np.zeros((2, 1, 128), np.float32)
    listener = Listener()
    for index in range(len(samples) // 512):
        frame = pcm[index * FRAME_BYTES : (index + 1) * FRAME_BYTES]
        heard = score(model(), [StreamFrames(listener, (frame,))])
        if heard.modelled == 0:
            states = np.zeros((2, 1, 128), np.float32)
            continue
        expected, states = model().score(
            padded[np.newaxis, index * 512 : index * 512 + 576], states, (1,)
        )
        assert heard.probabilities[0][0] == pytest.approx(float(expected[0]), abs=1e-6)


def test_the_streams_of_the_property_hold_speech_and_silence() -> None:
    for stream in range(STREAMS):
        assert max(alone(stream)) > 0.9
        assert 0.0 in alone(stream)


def test_a_closed_gate_costs_no_model_and_forgets() -> None:
    used, fresh = Listener(), Listener()
    for frame in frames_of(1):
        score(model(), [StreamFrames(used, (frame,))])
    hush = bytes(FRAME_BYTES)
    for _ in range(40):
        score(model(), [StreamFrames(used, (hush,))])
        score(model(), [StreamFrames(fresh, (hush,))])
    assert score(model(), [StreamFrames(used, (hush,))]).modelled == 0
    assert not used.state.any()


def test_audio_after_a_gap_is_a_new_stream() -> None:
    listener = Listener()
    for frame in frames_of(0)[:40]:
        score(model(), [StreamFrames(listener, (frame,))])
    after_gap = _scores(listener, frames_of(1)[:40], gap=True)
    assert list(after_gap) == list(alone(1)[:40])


def test_the_gate_delays_no_onset_by_more_than_a_frame() -> None:
    pcm = to_pcm(silence(640)) + to_pcm(speak(OBJECTION))
    listener = Listener()
    probabilities = list(
        _scores(listener, [pcm[at : at + FRAME_BYTES] for at in range(0, 64 * 1024, FRAME_BYTES)])
    )
    onset_ms = next(index for index, value in enumerate(probabilities) if value >= 0.5) * FRAME_MS
    assert 640 <= onset_ms <= 640 + 160


def _scores(
    listener: Listener, frames: "tuple[bytes, ...] | list[bytes]", *, gap: bool = False
) -> Iterator[float]:
    for index, frame in enumerate(frames):
        yield score(model(), [StreamFrames(listener, (frame,), gap and index == 0)]).probabilities[
            0
        ][0]
