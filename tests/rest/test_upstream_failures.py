"""What an upstream chat server says of a request keeps its meaning for our client."""

from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest

from tests.rest.live import KEY, serving_live
from voicechat.audio.wav import wav_header
from voicechat.errors import CONTEXT_TOO_LONG, FailureKind, ProviderError, RequestRefusedError
from voicechat.providers.interfaces import ChatRequest, ReplyPart, TextDelta
from voicechat.testing.scripted import Failure, ScriptedRecognizer

pytestmark = pytest.mark.real_time


class RefusingModel:
    def __init__(self, error: ProviderError) -> None:
        self._error = error

    async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        nothing: tuple[str, ...] = ()
        for text in nothing:
            yield TextDelta(text)
        raise self._error


MODELS = {
    "long": RefusingModel(RequestRefusedError("x", "secret", code=CONTEXT_TOO_LONG)),
    "bad": RefusingModel(RequestRefusedError("x", "secret")),
    "busy": RefusingModel(ProviderError("x", FailureKind.RATE_LIMIT, "secret", retry_after_s=61.2)),
    "poor": RefusingModel(
        ProviderError("x", FailureKind.RATE_LIMIT, "secret", code="insufficient_quota")
    ),
    "locked": RefusingModel(ProviderError("x", FailureKind.REJECTED, "secret")),
    "down": RefusingModel(ProviderError("x", FailureKind.CONNECTIVITY, "secret")),
}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[openai.AsyncOpenAI]:
    async with (
        serving_live(tmp_path, MODELS) as live,
        openai.AsyncOpenAI(api_key=KEY, base_url=f"{live.url}/v1", max_retries=0) as client,
    ):
        yield client


@pytest.mark.parametrize("stream", [False, True])
async def test_each_failure_is_told_as_what_it_is(client: openai.AsyncOpenAI, stream: bool) -> None:
    told: dict[str, tuple[int, str | None, str | None]] = {}
    for model in MODELS:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "x"}], stream=stream
            )
        assert "secret" not in str(caught.value)
        told[model] = (
            caught.value.status_code,
            caught.value.code,
            caught.value.response.headers.get("Retry-After"),
        )
    assert told == {
        "long": (400, "context_length_exceeded", None),
        "bad": (400, "invalid_parameter", None),
        "busy": (429, "rate_limit_exceeded", "62"),
        "poor": (429, "insufficient_quota", None),
        "locked": (502, "llm_failed", None),
        "down": (502, "llm_failed", None),
    }


async def test_a_voice_that_refuses_or_is_busy_is_told_so(tmp_path: Path) -> None:
    async with (
        serving_live(tmp_path) as live,
        openai.AsyncOpenAI(api_key=KEY, base_url=f"{live.url}/v1", max_retries=0) as client,
    ):
        told: list[tuple[int, str | None, str | None]] = []
        for error in (
            RequestRefusedError("x", "secret", code="string_above_max_length"),
            ProviderError("x", FailureKind.RATE_LIMIT, "secret", retry_after_s=3),
        ):
            live.synthesizer.failure = Failure(foreign=error)
            with pytest.raises(openai.APIStatusError) as caught:
                await client.audio.speech.create(model="default", input="Hello.", voice="scripted")
            assert "secret" not in str(caught.value)
            told.append(
                (
                    caught.value.status_code,
                    caught.value.code,
                    caught.value.response.headers.get("Retry-After"),
                )
            )
    assert told == [(400, "string_above_max_length", None), (429, "rate_limit_exceeded", "3")]


async def test_a_recogniser_that_refuses_is_told_so(tmp_path: Path) -> None:
    refused = Failure(foreign=RequestRefusedError("x", "secret"), calls=9)
    async with (
        serving_live(tmp_path, recognizer=ScriptedRecognizer(failure=refused)) as live,
        openai.AsyncOpenAI(api_key=KEY, base_url=f"{live.url}/v1", max_retries=0) as client,
    ):
        wav = wav_header(16_000, 32_000) + bytes(32_000)
        with pytest.raises(
            openai.BadRequestError, match="the recognition service refuses the request"
        ):
            await client.audio.transcriptions.create(model="default", file=("a.wav", wav))
