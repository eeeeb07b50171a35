"""A conversation, what its record holds, and what the record costs when it cannot be
written.
"""

import asyncio
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.records.recorded import Records, new_row, opened
from voicechat.providers.interfaces import AudioChunk, VoiceOptions
from voicechat.records.database import RecordsUnavailableError
from voicechat.records.finishing import read_record
from voicechat.records.folder import AUDIO, EVENTS, SOUND
from voicechat.records.replay import UnreplayableError, replay
from voicechat.records.setup import SessionSetup
from voicechat.session import events as ev
from voicechat.session.commands import Cancel, CommitTurn, Played
from voicechat.session.notices import LatencyMeasured, ReplyAudio, ReplyEnded, TurnCompleted
from voicechat.session.types import Settings
from voicechat.testing.harness import ScriptedHarness
from voicechat.testing.scripted import ScriptedModel, ScriptedSynthesizer

A_TURN = bytes(300 * 32)
PATIENCE_S = 60.0


class ToneSynthesizer(ScriptedSynthesizer):
    """Speaks a tone, which an encoder keeps."""

    async def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        async for chunk in super().synthesize(text, voice):
            yield AudioChunk(tone(len(chunk.pcm) // 2), chunk.rate_hz)


def tone(samples: int) -> bytes:
    return (8000 * np.sin(np.arange(samples) / 5)).astype("<i2").tobytes()


def samples_of(path: Path) -> np.ndarray[Any, Any]:
    """Decode an audio file: one row for each channel."""
    with av.open(str(path)) as file:
        resampler = av.AudioResampler("s16", "stereo", 16_000)
        pieces = [each for frame in file.decode(audio=0) for each in resampler.resample(frame)]
        pieces += resampler.resample(None)
    return np.concatenate([piece.to_ndarray() for piece in pieces], axis=1).reshape(-1, 2).T


def sounding_ms(channel: np.ndarray[Any, Any]) -> tuple[int, int]:
    """Return where a channel begins and ends to sound."""
    loud = np.flatnonzero(np.abs(channel.astype(int)) > 300)
    return int(loud[0]) // 16, int(loud[-1]) // 16


async def test_a_conversation_is_recorded_and_repeats_itself(tmp_path: Path) -> None:
    with opened(tmp_path) as records:
        row = new_row()
        async with ScriptedHarness(recording=records.begin(row)) as stage:
            stage.send_audio(A_TURN)
            stage.send(CommitTurn())
            await stage.notice(TurnCompleted)
        records.finish()

        told = replay(records.lines(row))
        assert told.difference is None, str(told.difference)
        assert told.stopped == ""
        names = [line.get("event") for line in records.parsed(row)]
        assert {"CommitTurn", "Transcribed", "ReplyTextArrived", "AudioSent"} <= set(names)
        (found,) = [records.index.find("p", row.id)]
        assert found is not None
        assert (found.state, found.turns, found.gaps) == ("done", 1, 0)
        summary = read_record(records.folder(row) / EVENTS).summary
        assert summary.turns[0]["user"]
        assert summary.turns[0]["answer"]["outcome"] == "spoken"
        assert summary.turns[0]["answer"]["stages_ms"]
        for path in records.folder(row).iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(records.folder(row).stat().st_mode) == 0o700
        assert not (records.folder(row) / SOUND).exists()


async def test_a_record_of_text_keeps_no_sound(tmp_path: Path) -> None:
    with opened(tmp_path) as records:
        row = new_row(mode="text")
        async with ScriptedHarness(recording=records.begin(row)) as stage:
            stage.send_audio(A_TURN)
            stage.send(CommitTurn())
            await stage.notice(TurnCompleted)
        records.writer.close(60)
        assert "ReplyTextArrived" in {line.get("event") for line in records.parsed(row)}
        assert not any("audio_from" in line for line in records.parsed(row))
        assert sorted(path.name for path in records.folder(row).iterdir()) == [EVENTS]


async def test_both_voices_are_where_they_were_heard(tmp_path: Path) -> None:
    with opened(tmp_path) as records:
        row = new_row()
        loop = asyncio.get_running_loop()
        recording = records.begin(row)
        began_s = loop.time()
        async with ScriptedHarness(recording=recording, synthesizer=ToneSynthesizer()) as stage:
            await asyncio.sleep(1)
            for number in range(3):
                await asyncio.sleep(0.1)
                stage.send_audio(tone(4800)[number * 3200 : (number + 1) * 3200])
            await asyncio.sleep(0.5)
            stage.send(CommitTurn())
            await stage.notice(TurnCompleted)
            await asyncio.sleep(30)
            sent_ms = (stage.times_s(ReplyAudio)[0] - began_s) * 1000
            length_ms = stage.of(ReplyAudio)[-1].end_ms
            stages = stage.of(LatencyMeasured)[0].breakdown
        records.finish()
        left, right = samples_of(records.folder(row) / AUDIO)
        assert sounding_ms(left) == pytest.approx((1000, 1300), abs=20)
        assert sounding_ms(right) == pytest.approx((sent_ms, sent_ms + length_ms), abs=20)
        # The stages add up to what can be heard: here the turn ends with its command.
        assert sent_ms - stages.total_ms == pytest.approx(1800, abs=20)


async def interrupted(records: Records, row: Any, delay_s: float, at_s: float) -> int:
    """Interrupt a reply after ``at_s`` with a client that plays ``delay_s`` after the
    first audio came, and reports every 100 ms. Return what it has played, in ms.
    """
    text = "One two three four five six seven eight nine ten. " * 3
    model = ScriptedModel(replies=((text,),))
    settings = Settings(lead_ms=500)
    setup = SessionSetup(settings=settings)
    recording = records.begin(row, setup)
    async with ScriptedHarness(recording=recording, model=model, settings=settings) as stage:
        stage.send(CommitTurn("Count."))
        await stage.notice(ReplyAudio)
        loop = asyncio.get_running_loop()
        begun_s = loop.time() + delay_s
        reply = stage.of(ReplyAudio)[0].reply
        end_s = loop.time() + at_s
        while loop.time() + 0.1 < end_s:
            await asyncio.sleep(0.1)
            stage.send(Played(reply, max(0, round((loop.time() - begun_s) * 1000))))
        await asyncio.sleep(end_s - loop.time())
        played_ms = round((loop.time() - begun_s) * 1000)
        stage.send(Cancel())
        await stage.notice(ReplyEnded)
        await asyncio.sleep(0.2)
    return played_ms


@pytest.mark.parametrize(("delay_s", "at_s"), [(0.0, 2.03), (0.3, 1.57), (0.15, 3.0)])
async def test_an_interrupted_reply_ends_where_the_client_stopped(
    tmp_path: Path, delay_s: float, at_s: float
) -> None:
    with opened(tmp_path) as records:
        row = new_row()
        played_ms = await interrupted(records, row, delay_s, at_s)
        records.finish()
        heard = read_record(records.folder(row) / EVENTS).heard
        assert abs(heard[-1].to_ms - played_ms) <= 100
        assert replay(records.lines(row)).difference is None


async def test_a_hanging_disk_costs_the_record_and_not_the_conversation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path, max_waiting_bytes=20_000) as records:
        row, free, hangs = new_row(), threading.Event(), threading.Event()
        add = records.index.add

        def hang(row: Any) -> None:
            hangs.set()
            assert free.wait(PATIENCE_S)
            add(row)

        monkeypatch.setattr(records.index, "add", hang)
        async with ScriptedHarness(recording=records.begin(row)) as stage:
            assert hangs.wait(PATIENCE_S)
            for number in range(1, 4):
                stage.send_audio(A_TURN)
                stage.send(CommitTurn())
                await stage.notice(TurnCompleted, number)
            assert records.writer.waiting_bytes <= 20_000 + 10_000
        free.set()
        records.finish()
        gaps = [line["gap"] for line in records.parsed(row) if "gap" in line]
        assert gaps
        assert gaps[0]["entries"] > 10
        assert records.writer.lost_entries == sum(gap["entries"] for gap in gaps)
        found = records.index.find("p", row.id)
        assert found is not None
        assert found.gaps == len(gaps)
        assert "missing" in replay(records.lines(row)).stopped


def test_a_full_disk_leaves_whole_lines_and_tells_the_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as records:
        row = new_row(mode="text")
        recording = records.begin(row)
        written: list[int] = []
        failed = threading.Event()
        real = __import__("os").write

        def write(descriptor: int, content: bytes) -> int:
            written.append(len(content))
            if len(written) == 2:
                real(descriptor, bytes(content)[:10])
                failed.set()
                raise OSError(28, "No space left on device")
            return int(real(descriptor, content))

        monkeypatch.setattr("voicechat.records.writer.os.write", write)
        recording.note(ev.Opened(), 0, [])
        while not written:
            threading.Event().wait(0.001)
        recording.note(ev.Ticked(), 50, [])
        assert failed.wait(PATIENCE_S)
        recording.note(ev.Ticked(), 90, [])
        recording.close(100)
        records.finish()
        assert [
            next(key for key in ("begin", "event", "gap", "end") if key in line)
            for line in records.parsed(row)
        ] in (
            ["begin", "event", "gap", "event", "end"],
            ["begin", "event", "gap", "end"],
        )


def test_a_database_that_fails_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as records:
        row = new_row(mode="text")
        add, tries = records.index.add, []

        def fail_once(row: Any) -> None:
            tries.append(row)
            if len(tries) == 1:
                raise RecordsUnavailableError("down")
            add(row)

        monkeypatch.setattr(records.index, "add", fail_once)
        recording = records.begin(row)
        recording.note(ev.Opened(), 0, [])
        recording.close(5)
        while len(tries) < 2:
            threading.Event().wait(0.001)
        records.finish()
        assert len(records.lines(row)) == 3


def test_redaction_leaves_nothing_of_what_it_takes(tmp_path: Path) -> None:
    def redact(line: dict[str, Any]) -> dict[str, Any] | None:
        if line.get("event") == "Ticked":
            raise ValueError("the hook fails")
        return None if "secret" in str(line) else line

    with opened(tmp_path, redact=redact) as records:
        row = new_row(mode="text")
        recording = records.begin(row)
        recording.note(CommitTurn("my secret"), 1, [])
        recording.note(ev.Ticked(), 2, [])
        recording.note(CommitTurn("hello"), 3, [])
        recording.close(4)
        records.finish()
        assert b"secret" not in b"".join(records.lines(row))
        assert [line.get("redacted") for line in records.parsed(row)[1:]] == [
            True,
            True,
            None,
            None,
        ]
        with pytest.raises(UnreplayableError, match="redacted"):
            replay(records.lines(row))


def test_the_record_of_a_killed_process_is_finished_by_another(tmp_path: Path) -> None:
    with opened(tmp_path) as records:
        row = new_row(writer="w1", mode="text")
        recording = records.begin(row)
        recording.note(CommitTurn("hello"), 1, [])
        while not (records.folder(row) / EVENTS).exists():
            threading.Event().wait(0.001)
        records.writer.close(60)
        with (records.folder(row) / EVENTS).open("ab") as file:
            file.write(b'{"t":7,"event":"Ti')  # cut off in the middle
        assert records.finisher.recover() == 0, "its writer lives"
        records.liveness.release()
        assert records.finisher.recover() == 1
        found = records.index.find("p", row.id)
        assert found is not None
        assert found.state == "cut"


_RECORD = """
import sys, time
from pathlib import Path
from tests.records.recorded import Records, new_row
from voicechat.session import events as ev

records, row = Records(Path(sys.argv[1])), new_row(id=sys.argv[2])
recording = records.begin(row)
for number in range(100_000):
    now_ms = number * 50
    recording.note(ev.Ticked(), now_ms, [])
    recording.heard(bytes(1600), now_ms)
    print(now_ms, flush=True)
    time.sleep(0.05)
"""


@pytest.mark.long
def test_a_killed_process_leaves_a_record_up_to_the_last_second(tmp_path: Path) -> None:
    row = new_row()
    child = subprocess.Popen(
        [sys.executable, "-c", _RECORD, str(tmp_path), row.id], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    told_ms = [int(child.stdout.readline()) for _ in range(60)]
    child.kill()
    told_ms += [int(line) for line in child.stdout.read().split()]
    child.wait()
    child.stdout.close()
    with opened(tmp_path) as records:
        assert records.finisher.recover() == 0, "it has the name of our own writer"
        records.liveness.release()
        assert records.finisher.recover() == 1
        found = records.index.find("p", row.id)
        assert found is not None
        assert found.state == "cut"
        assert told_ms[-1] - found.duration_ms <= 1000
        left, _ = samples_of(records.folder(row) / AUDIO)
        assert told_ms[-1] - len(left) / 16 <= 1100
