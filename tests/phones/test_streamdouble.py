"""``streamdouble``, which pretends to be Twilio, calls a server as it runs."""

import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from streamdouble.api import CallReport, run_scenario
from streamdouble.chaos import Impairments
from streamdouble.session import SessionConfig

from tests.phones.service import KEY, phone_server
from voicechat.audio import g711
from voicechat.audio.resample import Resampler
from voicechat.audio.wav import wav_header
from voicechat.testing.scripted import ScriptedModel

pytestmark = [pytest.mark.real_time, pytest.mark.long]

PARAMETERS = {"token": KEY, "guest": "Ann", "called": "+49 (30) 1234", "caller": "+4940999"}
GREETING = "Hotel Anna, good day. How may I help you?"


class Stage:
    """Plays scenarios with one server."""

    def __init__(self, folder: Path, recordings: Path) -> None:
        self._folder = folder
        self._speech = folder / "speech.wav"
        with wave.open(str(recordings / "something.wav")) as file:
            pcm = file.readframes(file.getnframes())
        down = Resampler(16_000, 8_000)
        narrow = down.push_audio(pcm) + down.finish_stream()
        self._speech.write_bytes(wav_header(8_000, len(narrow)) + narrow)
        self.model = ScriptedModel((("Going there at once.",),))

    async def play(self, *steps: str, bad: Impairments | None = None) -> CallReport:
        scenario = self._folder / "scenario.yaml"
        lines = [f"  - {step.replace('SPEECH', str(self._speech))}" for step in steps]
        scenario.write_text("\n".join(["name: a call", "steps:", *lines]))
        config = SessionConfig(custom_parameters=PARAMETERS, quiet_period_s=0.6)
        if bad is not None:
            config = replace(config, impairments=bad)
        async with phone_server(self._folder, model=self.model) as server:
            address = f"{server.url.replace('http', 'ws')}/phone/twilio/stream"
            report = await run_scenario(address, scenario, config=config)
        assert report.violations == []
        assert report.result.failed_expectations == []
        return report

    @property
    def asked(self) -> list[str]:
        """What the model read at last."""
        return [str(message["content"]) for message in self.model.requests[-1].messages]


@pytest.fixture
def stage(tmp_path: Path, recordings: Path) -> Stage:
    return Stage(tmp_path, recordings)


async def test_a_caller_on_a_bad_line_is_greeted_understood_and_answered(stage: Stage) -> None:
    bad = Impairments(loss=0.1, jitter_ms=60)
    report = await stage.play(
        "wait_for: audio", "wait: 2.5", "say: SPEECH", "wait: 2.5", "hangup", bad=bad
    )
    assert report.spoke
    assert stage.asked[0] == (
        "You answer for the hotel. The guest is Ann; +4940999 called +49 (30) 1234."
    )
    assert stage.asked[-2:] == [GREETING, "go somewhere"]
    line = np.frombuffer(report.audio_received, np.uint8)
    assert len(line) > 8 * 2_500
    assert 500 < np.abs(g711.MU_LAW[line].astype(int)).max() < 32_000


async def test_a_caller_interrupts_the_greeting_by_voice(stage: Stage) -> None:
    await stage.play(
        "wait_for: audio", "wait: 0.2", "say: SPEECH", "wait_for: clear", "wait: 2.5", "hangup"
    )
    heard = stage.asked[-2]
    assert GREETING.startswith(heard)
    assert 0 < len(heard) < len(GREETING)
    assert stage.asked[-1] == "go somewhere"


async def test_a_caller_presses_keys(stage: Stage) -> None:
    await stage.play(
        "wait_for: audio", "wait: 0.5", 'dtmf: "1234#"', "wait_for: clear", "wait: 2", "hangup"
    )
    assert stage.asked[-1] == "DTMF: 1234"


async def test_a_caller_hangs_up_at_once(stage: Stage) -> None:
    await stage.play("wait_for: audio", "hangup")
    assert stage.model.requests == []
