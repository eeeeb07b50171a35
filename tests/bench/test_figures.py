import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from voicechat.bench.figures import Spread, spread
from voicechat.bench.resource_usage import usage_of
from voicechat.bench.script import (
    DELAYS,
    FIRST_DELTAS,
    FRAME,
    first_frame,
    reply_to,
    turn_named_in,
    turn_of,
    words_of,
)
from voicechat.bench.services import open_chat_model, open_recognizer, open_synthesizer
from voicechat.bench.stages import AnsweredTurn, stages_of
from voicechat.bench.timestamps import Moment, TurnTimestamps
from voicechat.providers.interfaces import ChatRequest, RecognitionOptions, TextDelta, VoiceOptions
from voicechat.text.sentences import SentenceSplitter


def test_a_percentile_is_a_value_that_occurred() -> None:
    assert spread([float(n) for n in range(200, 0, -1)]) == Spread(200, 100.0, 198.0, 200.0)
    assert spread([7.0]) == Spread(1, 7.0, 7.0, 7.0)
    assert spread([]) is None


def test_the_script_counts_the_deltas_that_the_first_sentence_needs() -> None:
    splitter = SentenceSplitter()
    spoken_after = [bool(splitter.push_text(delta)) for delta in reply_to(17)]
    assert spoken_after.index(True) == FIRST_DELTAS - 1
    assert DELAYS.first_audio_ms == 100 + (200 + 20 + 20) + 100


def test_a_turns_number_can_be_found_in_all_that_is_made_of_it() -> None:
    assert turn_of(first_frame(4_711)) == turn_named_in(words_of(4_711)) == 4_711
    assert len(first_frame(4_711)) == len(FRAME)
    first, *later = "".join(reply_to(4_711)).split(". ")
    assert [turn_named_in(sentence) for sentence in (first, *later)] == [4_711, None, None]
    assert turn_of(FRAME) == turn_of(b"") == 0


def test_what_the_engine_adds_is_what_lies_between_the_services() -> None:
    """Each service is 1 ms late and the engine takes 1, 2, 3 and 4 ms: 10 of the 13 ms
    are its own.
    """
    at_ms = [1, 102, 104, 345, 348, 449]
    moments = [ms * 1_000_000 + 5_000_000_000 for ms in at_ms]
    (stages,) = stages_of([AnsweredTurn(7, 5.0, 5.453)], {7: moments})
    assert [round(ms, 6) for ms in (stages.hear, stages.ask, stages.say, stages.send)] == [
        1,
        2,
        3,
        4,
    ]
    assert stages.total == pytest.approx(10)
    assert AnsweredTurn(7, 5.0, 5.453).took_ms - DELAYS.first_audio_ms == pytest.approx(13)
    with pytest.raises(KeyError):
        stages_of([AnsweredTurn(8, 5.0, 5.453)], {7: moments})


async def test_the_services_note_every_moment_of_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    timestamps = TurnTimestamps()
    monkeypatch.setattr("voicechat.bench.services.TIMESTAMPS", timestamps)

    async def audio() -> AsyncIterator[bytes]:
        for frame in (first_frame(9), *[FRAME] * 9):
            yield frame

    heard = [
        result.text async for result in open_recognizer().recognize(audio(), RecognitionOptions())
    ][-1]
    request = ChatRequest(messages=({"role": "user", "content": heard},))
    said = "".join(
        [
            part.text
            async for part in open_chat_model().reply(request)
            if isinstance(part, TextDelta)
        ]
    )
    assert [
        chunk async for chunk in open_synthesizer().synthesize(said.split(". ")[0], VoiceOptions())
    ]
    assert list(timestamps.turns) == [9]
    assert timestamps.turns[9] == sorted(timestamps.turns[9])
    assert all(timestamps.turns[9])
    assert len(Moment) == len(timestamps.turns[9])


def test_the_timestamps_of_several_processes_are_put_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = iter(range(3))
    monkeypatch.setattr(os, "getpid", lambda: next(pids))
    turns: tuple[tuple[int, ...], ...] = ((1, 4), (2,), ())
    for noted in turns:
        timestamps = TurnTimestamps()
        for turn in noted:
            timestamps.mark(turn, Moment.ASKED)
        timestamps.write_to(tmp_path)
    found = TurnTimestamps.read_from(tmp_path)
    assert sorted(found) == [1, 2, 4]
    assert all(moments[Moment.ASKED] and not moments[Moment.TOLD] for moments in found.values())


BUSY_PROCESS = """
import sys, time
print("idle", flush=True)
sys.stdin.readline()
held = b"x" * (32 * 2**20)
while time.process_time() < 0.2:
    pass
print("busy", flush=True)
sys.stdin.readline()
"""


@pytest.mark.real_time
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_usage_grows_with_what_a_process_does() -> None:
    # A process of its own: nothing else takes or gives back memory in it.
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", BUSY_PROCESS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"idle\n"
        before = usage_of(process.pid)
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"busy\n"
        after = usage_of(process.pid)
        process.stdin.write(b"\n")
    assert before is not None
    assert after is not None
    assert after.anonymous_bytes - before.anonymous_bytes > 30 * 2**20
    assert after.cpu_s > before.cpu_s
    assert after.machine_busy_s > before.machine_busy_s


def test_there_is_no_usage_of_a_process_that_is_not() -> None:
    assert usage_of(2**22 + 1) is None
