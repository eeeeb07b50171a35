import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicechat.voice.activity import (
    Activity,
    ActivitySettings,
    SpeechActivity,
    SpeechOffset,
    SpeechOnset,
)
from voicechat.voice.silero import FRAME_MS


def run(probabilities: list[float], settings: ActivitySettings | None = None) -> list[Activity]:
    activity = SpeechActivity(settings)
    events = [
        activity.push((index + 1) * FRAME_MS, value) for index, value in enumerate(probabilities)
    ]
    return [event for event in events if event is not None]


def test_speech_begins_at_its_first_frame_and_ends_after_its_last() -> None:
    events = run([0.0] * 20 + [0.9] * 10 + [0.0] * 10)
    assert events == [SpeechOnset(640, 340), SpeechOffset(960)]


def test_a_single_frame_is_no_speech() -> None:
    assert run([0.0] * 5 + [0.99] + [0.0] * 5) == []


def test_a_short_gap_is_part_of_the_speech() -> None:
    events = run([0.9] * 5 + [0.0] * 2 + [0.9] * 5 + [0.0] * 5)
    assert events == [SpeechOnset(0, 0), SpeechOffset(384)]


@pytest.mark.parametrize(("between", "ends"), [(0.4, False), (0.3, True)])
def test_speech_goes_on_until_well_below_the_threshold(between: float, ends: bool) -> None:
    assert any(isinstance(event, SpeechOffset) for event in run([0.9] * 5 + [between] * 20)) is ends


def test_the_padding_does_not_reach_into_the_speech_before() -> None:
    events = run([0.9] * 5 + [0.0] * 4 + [0.9] * 5)
    assert events == [SpeechOnset(0, 0), SpeechOffset(160), SpeechOnset(288, 160)]


def test_a_threshold_of_zero_point_one_still_knows_silence() -> None:
    settings = ActivitySettings(threshold=0.1)
    assert [type(event) for event in run([0.2] * 5 + [0.01] * 5, settings)] == [
        SpeechOnset,
        SpeechOffset,
    ]


@given(st.lists(st.floats(0, 1), max_size=200), st.floats(0.05, 0.95))
def test_events_alternate_and_their_times_never_go_back(
    probabilities: list[float], threshold: float
) -> None:
    """And whether a frame may decide something is known before it comes."""
    settings = ActivitySettings(threshold=threshold)
    events = run(probabilities, settings)
    activity = SpeechActivity(settings)
    for index, value in enumerate(probabilities, 1):
        decides = activity.decides(index * FRAME_MS)
        assert decides or activity.push(index * FRAME_MS, value) is None
        if decides:
            activity.push(index * FRAME_MS, value)
    last_ms = 0
    for index, event in enumerate(events):
        assert isinstance(event, SpeechOnset if index % 2 == 0 else SpeechOffset)
        times = (
            [event.audio_start_ms, event.onset_ms]
            if isinstance(event, SpeechOnset)
            else [event.audio_end_ms]
        )
        for time_ms in times:
            assert last_ms <= time_ms <= len(probabilities) * FRAME_MS
            last_ms = time_ms
