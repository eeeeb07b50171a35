import pytest

from voicechat.bench.playout import Playout

PIECE = bytes(3200)


def test_audio_that_comes_as_it_is_played_is_not_late() -> None:
    playout = Playout("PCM_16000HZ_MONO_16BIT")
    for number in range(10):
        playout.add_audio(PIECE, 5 + number * 0.1)
    assert playout.first_s == 5
    assert playout.late_ms == pytest.approx(0, abs=1e-6)


def test_the_longest_gap_counts_and_playing_goes_on_after_it() -> None:
    """Pieces of 100 ms: the third comes 30 ms late, the fourth 10 ms after that has
    been played.
    """
    playout = Playout("PCM_16000HZ_MONO_16BIT")
    for at_s in (0.0, 0.05, 0.23, 0.34):
        playout.add_audio(PIECE, at_s)
    assert playout.late_ms == pytest.approx(30)


def test_mp3_is_as_long_as_its_bit_rate_says_and_opus_is_not_judged() -> None:
    mp3, opus = Playout("MP3_22050HZ_MONO_64KBPS"), Playout("OGG_OPUS_16KHZ_MONO_32KBPS")
    for playout in (mp3, opus):
        playout.add_audio(bytes(8_000), 0)
        playout.add_audio(bytes(8_000), 1.2)
    assert mp3.late_ms == pytest.approx(200)
    assert opus.late_ms == 0
