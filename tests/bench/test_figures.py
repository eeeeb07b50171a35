import gc
import os

import pytest

from voicechat.bench.collector import watching_collector
from voicechat.bench.figures import Spread, spread
from voicechat.bench.script import DELAYS, FIRST_SENTENCE, LATER_SENTENCES
from voicechat.bench.usage import usage_of
from voicechat.text.sentences import SentenceSplitter


def test_a_percentile_is_a_value_that_occurred() -> None:
    assert spread([float(n) for n in range(200, 0, -1)]) == Spread(200, 100.0, 198.0, 200.0)
    assert spread([7.0]) == Spread(1, 7.0, 7.0, 7.0)
    assert spread([]) is None


def test_the_script_counts_the_deltas_that_the_first_sentence_needs() -> None:
    splitter = SentenceSplitter()
    spoken_after = [bool(splitter.push(delta)) for delta in (*FIRST_SENTENCE, *LATER_SENTENCES)]
    assert spoken_after.index(True) == len(FIRST_SENTENCE) - 1
    assert DELAYS.first_audio_ms == 100 + (200 + 20 + 20) + 100


@pytest.mark.real_time
def test_usage_grows_with_what_a_process_does() -> None:
    before = usage_of(os.getpid())
    if before is None:
        pytest.skip("needs /proc")
    held = bytearray(os.urandom(1)) * (32 * 2**20)
    spent = 0
    while (after := usage_of(os.getpid())) is not None and after.cpu_s < before.cpu_s + 0.05:
        spent += 1
    assert after is not None
    assert after.anonymous_bytes - before.anonymous_bytes > 30 * 2**20
    assert after.machine_busy_s > before.machine_busy_s
    assert len(held) == 32 * 2**20


def test_there_is_no_usage_of_a_process_that_is_not() -> None:
    assert usage_of(2**22 + 1) is None


def test_collections_are_counted_until_the_watch_ends() -> None:
    with watching_collector() as pauses:
        gc.collect()
        pauses.forget()
        gc.collect()
        gc.collect()
    gc.collect()
    assert pauses.pauses == 2
    assert pauses.longest_us > 0
