"""The scripted service speaks the SDK's protocol: the SDK itself says so where it is
installed.
"""

import asyncio
import warnings
from pathlib import Path

import pytest

from tests.providers.dashscope_service import audio_of, dashscope

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    sdk = pytest.importorskip("dashscope", reason="needs the DashScope SDK: pip install dashscope")
    asr = pytest.importorskip("dashscope.audio.asr")
    tts = pytest.importorskip("dashscope.audio.tts_v2")

pytestmark = [pytest.mark.real_time, pytest.mark.filterwarnings("ignore")]

SPEECH = b"\x01\x00" * 16 * 300
SILENCE = bytes(32 * 400)


@pytest.fixture(autouse=True)
def a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk, "api_key", "secret")


async def test_the_sdk_recognises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = tmp_path / "speech.pcm"
    recording.write_bytes(SPEECH + SILENCE + SPEECH)
    async with dashscope() as service:
        monkeypatch.setattr(sdk, "base_websocket_api_url", service.url)

        def recognise() -> list[dict[str, object]]:
            recognition = asr.Recognition(
                model="paraformer-realtime-v2",
                format="pcm",
                sample_rate=16000,
                callback=asr.RecognitionCallback(),
            )
            result = recognition.call(str(recording))
            assert result.status_code == 200, result
            sentences: list[dict[str, object]] = result.get_sentence()
            return sentences

        sentences = await asyncio.to_thread(recognise)
        assert [sentence["text"] for sentence in sentences] == ["w1 w2 w3."] * 2
        assert [sentence["end_time"] for sentence in sentences] == [300, 1000]
        assert service.asked[0].audio == SPEECH + SILENCE + SPEECH
        assert service.asked[0].finished


async def test_the_sdk_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashscope() as service:
        monkeypatch.setattr(sdk, "base_websocket_api_url", service.url)

        def speak() -> bytes:
            synthesizer = tts.SpeechSynthesizer(
                model="cosyvoice-v2",
                voice="longxiaochun_v2",
                format=tts.AudioFormat.PCM_24000HZ_MONO_16BIT,
            )
            pcm: bytes = synthesizer.call("你好 there")
            return pcm

        assert await asyncio.to_thread(speak) == audio_of("你好 there")
        assert service.asked[0].finished
