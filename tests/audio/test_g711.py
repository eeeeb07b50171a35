import numpy as np
import pytest

from voicechat.audio import g711

LAWS = [(g711.MU_LAW, g711.MU_LAW_CODES), (g711.A_LAW, g711.A_LAW_CODES)]
EVERY_SAMPLE = np.arange(-32768, 32768).astype("<i2").tobytes()


@pytest.mark.parametrize(
    ("codes", "samples", "line"),
    [
        # ITU-T G.711, tables 1a to 2b: decision values at 16 bits and their codes.
        (
            g711.MU_LAW_CODES,
            [0, 3, 4, 32_635, 32_767, -1, -4, -5, -32_768],
            "ff ff fe 80 80 7f 7f 7e 00",
        ),
        (
            g711.A_LAW_CODES,
            [0, 15, 16, 32_256, 32_767, -1, -16, -17, -32_768],
            "d5 d5 d4 aa aa 55 55 54 2a",
        ),
    ],
    ids=["mu-law", "a-law"],
)
def test_samples_become_the_codes_of_the_standard(
    codes: g711.CodeTable, samples: list[int], line: str
) -> None:
    assert g711.encoded(np.array(samples, "<i2").tobytes(), codes).hex(" ") == line


@pytest.mark.parametrize(("samples", "codes"), LAWS, ids=["mu-law", "a-law"])
def test_decoded_codes_become_the_same_codes(samples: g711.Table, codes: g711.CodeTable) -> None:
    again = np.frombuffer(g711.encoded(samples.astype("<i2").tobytes(), codes), np.uint8)
    assert np.array_equal(samples[again], samples)


@pytest.mark.parametrize(("samples", "codes"), LAWS, ids=["mu-law", "a-law"])
def test_no_sample_is_further_off_than_half_a_step(
    samples: g711.Table, codes: g711.CodeTable
) -> None:
    line = np.frombuffer(g711.encoded(EVERY_SAMPLE, codes), np.uint8)
    was = np.frombuffer(EVERY_SAMPLE, "<i2").astype(int)
    off = np.abs(samples[line].astype(int) - was)
    # A segment is twice as long as the one before, and has 16 steps.
    assert np.all(off <= np.abs(was) / 32 + 8)
