from hypothesis import given
from hypothesis import strategies as st

from voicechat.session.playback import PlaybackClock


def test_it_starts_with_the_first_audio_and_runs_in_real_time() -> None:
    clock = PlaybackClock()
    assert clock.position_ms(5_000) == 0
    clock.note_sent(1_000, 5_000)
    assert [clock.position_ms(at) for at in (5_000, 5_400, 6_000, 9_000)] == [0, 400, 1_000, 1_000]


def test_what_was_sent_stays_sent() -> None:
    clock = PlaybackClock()
    clock.note_sent(1_000, 0)
    clock.note_sent(400, 100)
    assert clock.sent_ms == 1_000
    assert clock.position_ms(900) == 900


def test_it_waits_for_audio_as_a_player_does() -> None:
    clock = PlaybackClock()
    clock.note_sent(100, 0)
    clock.note_sent(200, 1_000)  # the player had been silent since 100
    assert clock.position_ms(1_050) == 150


def test_a_report_replaces_the_estimate_and_the_clock_goes_on() -> None:
    clock = PlaybackClock()
    clock.note_sent(10_000, 0)
    clock.note_played(300, 2_000)
    assert clock.position_ms(2_000) == 300
    assert clock.position_ms(2_500) == 800


def test_a_report_cannot_claim_what_was_not_sent() -> None:
    clock = PlaybackClock()
    clock.note_sent(500, 0)
    clock.note_played(99_999, 10)
    assert clock.position_ms(10) == 500
    clock.note_played(-7, 20)
    assert clock.position_ms(20) == 0


@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 400)), max_size=30),
    st.integers(0, 5_000),
)
def test_it_never_runs_back_nor_ahead_of_what_was_sent(
    steps: list[tuple[int, int]], after: int
) -> None:
    clock = PlaybackClock()
    now = sent = last = 0
    for wait, more in steps:
        now += wait
        sent += more
        clock.note_sent(sent, now)
        assert last <= clock.position_ms(now) <= sent
        last = clock.position_ms(now)
    due = clock.reaches_ms(sent)
    assert clock.position_ms(max(now, due)) == sent
    assert due <= now or clock.position_ms(due - 1) < sent
