"""What an answer says beside itself: that something else serves than was named."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.rest.live import PROJECT, Live, serving_live

pytestmark = pytest.mark.real_time

CHAT = {"model": "Qwen2.5-72B-Instruct", "messages": [{"role": "user", "content": "x"}]}
VOICE = {"easyllm_id": "6Q0", "synthesis_param": {"voice": "小云"}}


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    async with serving_live(tmp_path) as server:
        yield server


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/v1/chat/completions", CHAT, ['model: "Qwen2.5-72B-Instruct" is not configured here']),
        ("/api/open-apis/v1/chat/completions", CHAT | {"stream": True}, ["model: "]),
        (
            "/api/open-apis/v1/chat/completions-with-voice-output",
            {"chat_completion_req": CHAT, "speech_synthesis_req": VOICE},
            [
                "chat_completion_req.model: ",
                "; speech_synthesis_req.easyllm_id: ",
                "synthesis_param.voice: ",
            ],
        ),
        (
            f"{PROJECT}/easyllms/voice/synthesize-audio",
            VOICE | {"text": ["Hi."]},
            [
                'easyllm_id: "6Q0" is not',
                'synthesis_param.voice: "\\u5c0f\\u4e91" is not known here; "',
            ],
        ),
        (
            "/v1/audio/speech",
            {"model": "other", "input": "Hi.", "voice": "alloy"},
            ["model: ", "; voice: "],
        ),
    ],
)
async def test_an_answer_says_that_something_else_serves_than_was_named(
    live: Live, path: str, body: dict[str, Any], told: list[str]
) -> None:
    answer = await live.ask(path, body)
    assert answer.status == 200
    for each in told:
        assert each in answer.headers["Voicechat-Note"]


async def test_an_answer_that_is_what_was_asked_for_has_no_note(live: Live) -> None:
    for body in (CHAT | {"model": "default"}, CHAT | {"model": "", "messages": []}):
        assert "Voicechat-Note" not in (await live.ask("/v1/chat/completions", body)).headers
    speech = {"easyllm_id": "default", "text": ["Hi."], "synthesis_param": {}}
    answer = await live.ask(f"{PROJECT}/easyllms/voice/synthesize-audio", speech)
    assert "Voicechat-Note" not in answer.headers
