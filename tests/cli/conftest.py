"""Commands run here against the scripted providers, in a directory of their own."""

from pathlib import Path

import pytest

from voicechat.audio.wav import wav_header

SCRIPTED = """
[server]
port = 0
[asr.default]
provider = "scripted_services:open_recognizer"
text = "go forward ten meters"
[llm.default]
provider = "scripted_services:open_chat_model"
reply = ["Ten meters ", "it is."]
[embedders.default]
provider = "scripted_services:open_embedder"
[tts.default]
provider = "scripted_services:open_synthesizer"
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parent / "plugins")
    monkeypatch.setenv("VOICECHAT_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "voicechat.toml").write_text(SCRIPTED)
    pcm = bytes(16000 * 2)
    (tmp_path / "hello.wav").write_bytes(wav_header(16000, len(pcm)) + pcm)
    return tmp_path
