"""A whole server, configured by a file: an endpoint that nobody listens on, with and
without somebody to stand in.
"""

from pathlib import Path

import numpy as np
import pytest
from aiohttp import ClientSession, FormData, web

from tests.conftest import ROOT
from tests.providers.openai_service import saying
from tests.providers.openai_service import serving as serving_openai
from tests.server.workers.stage import wav_of
from tests.unused_port import unused_port
from voicechat.client import (
    ErrorMessage,
    ReplyAudioMessage,
    ReplyTextMessage,
    ServerMessage,
    TurnCompletedMessage,
    connect,
)
from voicechat.config import Config, build_services, load_config
from voicechat.server.serve import credentials, serving

pytestmark = pytest.mark.real_time

SERVICES = """
[server]
port = 0
[asr.default]
provider = "scripted_services:open_recognizer"
text = "hello"
[tts.default]
provider = "scripted_services:open_synthesizer"
[llm.default]
provider = "openai"
model = "m"
base_url = "http://127.0.0.1:{port}/v1"
"""


@pytest.fixture
def toml(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(ROOT / "tests" / "cli" / "plugins")
    return SERVICES.format(port=unused_port())


def configured(folder: Path, toml: str) -> Config:
    path = folder / "voicechat.toml"
    path.write_text(toml)
    return load_config(path, {"VOICECHAT_DATA_DIR": str(folder / "data")})


async def a_turn(config: Config) -> tuple[list[ServerMessage], str]:
    """Hold one turn; give what was said, and the metrics afterwards."""
    said: list[ServerMessage] = []
    async with serving(config, build_services(config), credentials(config), print) as server:
        assert server.key
        async with connect(server.url, key=server.key) as conversation:
            await conversation.send_text("hello")
            async for message in conversation:
                said.append(message)
                if isinstance(message, TurnCompletedMessage):
                    break
        async with ClientSession() as session, session.get(f"{server.url}/metrics") as response:
            return said, await response.text()


def of(said: list[ServerMessage], *kinds: type) -> list[type]:
    return [type(message) for message in said if isinstance(message, kinds)]


async def test_somebody_stands_in(tmp_path: Path, toml: str) -> None:
    chain = (
        'fallback = ["spare"]\n[llm.spare]\nprovider = "scripted_services:open_chat_model"\nreply '
        '= ["Hi."]\n'
    )
    said, metrics = await a_turn(configured(tmp_path, toml + chain))
    assert not of(said, ErrorMessage)
    assert of(said, ReplyTextMessage)
    assert of(said, ReplyAudioMessage)
    assert 'voicechat_fallbacks_total{by="llm.spare",service="llm.default"} 1.0' in metrics
    assert (
        'voicechat_service_failures_total{kind="connectivity",service="llm.default"} 1.0' in metrics
    )


async def test_nobody_stands_in_and_an_apology_is_heard(tmp_path: Path, toml: str) -> None:
    said, metrics = await a_turn(configured(tmp_path, toml))
    kinds = of(said, ErrorMessage, ReplyTextMessage, ReplyAudioMessage, TurnCompletedMessage)
    assert kinds[0] is ErrorMessage
    assert set(kinds[1:-1]) == {ReplyAudioMessage}
    assert kinds[-1] is TurnCompletedMessage
    assert 'voicechat_turns_total{outcome="failed"} 1.0' in metrics


async def test_the_apology_can_be_switched_off(tmp_path: Path, toml: str) -> None:
    said, _ = await a_turn(configured(tmp_path, toml + "[apology]\nenabled = false\n"))
    assert of(said, ErrorMessage, ReplyTextMessage, ReplyAudioMessage, TurnCompletedMessage) == [
        ErrorMessage,
        TurnCompletedMessage,
    ]


@pytest.mark.long
async def test_audio_that_one_client_breaks_the_recogniser_with_is_that_clients_fault(
    tmp_path: Path, toml: str
) -> None:
    noise = np.random.default_rng(1).uniform(-1, 1, 16_000)
    quiet, loud = (wav_of((noise * peak).astype("<i2").tobytes()) for peak in (9_000, 30_000))
    refused = 0

    async def answer(request: web.Request, response: web.StreamResponse) -> None:
        nonlocal refused
        bad = np.abs(np.frombuffer(service.asked[-1].file[44:], "<i2").astype(int)).max() > 20_000
        refused += bool(bad)
        said = b'{"error": {"message": "Invalid file"}}' if bad else b'{"text": "Good morning."}'
        await saying(said, status=400 if bad else 200, content_type="application/json")(
            request, response
        )

    async with serving_openai() as service:
        service.answers = [answer]
        scripted = 'provider = "scripted_services:open_recognizer"\ntext = "hello"\n'
        asked = f'provider = "openai"\nmodel = "whisper-1"\nbase_url = "{service.base_url}"\n'
        config = configured(tmp_path, toml.replace(scripted, asked))
        async with (
            serving(config, build_services(config), credentials(config), print) as server,
            ClientSession(headers={"Authorization": f"Bearer {server.key}"}) as http,
        ):

            async def transcribe(recording: bytes) -> tuple[int, str]:
                form = FormData({"model": "whisper-1"})
                form.add_field("file", recording, filename="a.wav")
                url = f"{server.url}/v1/audio/transcriptions"
                async with http.post(url, data=form) as response:
                    return response.status, await response.text()

            for _ in range(12):
                assert (await transcribe(loud))[0] == 400
            assert refused >= 12, "each was asked for: the breaker is closed"
            status, text = await transcribe(quiet)
    assert status == 200
    assert "Good morning." in text
