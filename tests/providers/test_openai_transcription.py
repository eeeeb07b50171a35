import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.humming import silence, voice
from tests.providers.openai_service import Answer, Endless, Service, saying, serving
from voicechat.audio.wav import read_wav
from voicechat.errors import ConfigError, FailureKind, ProviderError
from voicechat.providers.interfaces import RecognitionOptions
from voicechat.providers.openai_transcription import OpenAIRecognizer, read_answer
from voicechat.providers.registry import find_factory
from voicechat.session.types import Transcript

SPEECH = silence(500) + voice(1500) + silence(1000)
ANSWER = {
    "text": " Hello, world.",
    "words": [
        {"word": "Hello", "start": 0.3, "end": 0.62},
        {"word": "world", "start": 0.7, "end": 1.1},
    ],
    "segments": [
        {
            "text": " Hello, world.",
            "start": 0.0,
            "end": 1.5,
            "no_speech_prob": 0.01,
            "avg_logprob": -0.2,
        }
    ],
}


def answering(answer: object, *, after_s: float = 0) -> Answer:
    async def answer_later(request: web.Request, response: web.StreamResponse) -> None:
        await asyncio.sleep(after_s)
        await saying(json.dumps(answer).encode(), content_type="application/json")(
            request, response
        )

    return answer_later


@asynccontextmanager
async def hearing(
    *answers: Answer, **options: object
) -> AsyncIterator[tuple[Service, OpenAIRecognizer]]:
    async with serving() as service:
        service.answers = list(answers)
        recognizer = find_factory("asr", "openai")(
            model="m", base_url=service.base_url, api_key="secret", **options
        )
        assert isinstance(recognizer, OpenAIRecognizer)
        try:
            yield service, recognizer
        finally:
            await recognizer.aclose()


async def pieces(pcm: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(pcm), 3200):
        await asyncio.sleep(0)
        yield pcm[start : start + 3200]


async def transcribe(recognizer: OpenAIRecognizer, pcm: bytes = SPEECH) -> list[Transcript]:
    return [result async for result in recognizer.recognize(pieces(pcm), RecognitionOptions())]


def formats(service: Service) -> list[str]:
    return [dict(asked.fields)["response_format"] for asked in service.asked]


@pytest.mark.real_time
async def test_a_sentence_with_its_request() -> None:
    async with hearing(answering(ANSWER), language="en", prompt="Names: Ada") as (
        service,
        recognizer,
    ):
        (final,) = await transcribe(recognizer)
        assert final.text == "Hello, world."
        (asked,) = service.asked
        assert sorted(asked.fields) == [
            ("language", "en"),
            ("model", "m"),
            ("prompt", "Names: Ada"),
            ("response_format", "verbose_json"),
            ("timestamp_granularities[]", "segment"),
            ("timestamp_granularities[]", "word"),
        ]
        assert asked.authorization == "Bearer secret"
        heard = read_wav(asked.file)
        begin = SPEECH.index(heard)
        assert 200 <= begin // 32 <= 500
        assert begin // 32 + len(heard) // 32 >= 2000
        assert [(word.text, word.begin_ms - begin // 32) for word in final.words] == [
            ("Hello", 300),
            ("world", 700),
        ]


@pytest.mark.real_time
async def test_what_is_not_set_is_not_sent() -> None:
    async with hearing(answering(ANSWER)) as (service, recognizer):
        await transcribe(recognizer)
        assert {name for name, _ in service.asked[0].fields} == {
            "model",
            "response_format",
            "timestamp_granularities[]",
        }


@pytest.mark.real_time
async def test_silence_is_not_sent() -> None:
    async with hearing(answering(ANSWER)) as (service, recognizer):
        assert await transcribe(recognizer, silence(3000)) == []
        assert service.asked == []


@pytest.mark.real_time
@pytest.mark.parametrize("status", [400, 422])
async def test_a_server_that_gives_no_times_is_asked_without_them_from_then_on(status: int) -> None:
    refusing = saying(b'{"error": {"param": "response_format"}}', status=status)
    async with hearing(refusing, answering({"text": "hello"})) as (service, recognizer):
        for _ in range(2):
            (final,) = await transcribe(recognizer)
            assert [word.text for word in final.words] == ["hello"]
        assert formats(service) == ["verbose_json", "json", "json"]
        assert "timestamp_granularities[]" not in dict(service.asked[1].fields)


@pytest.mark.real_time
async def test_what_is_refused_in_any_form_is_rejected_and_times_are_asked_for_again() -> None:
    async with hearing(saying(b"{}", status=401)) as (service, recognizer):
        for _ in range(2):
            with pytest.raises(ProviderError) as caught:
                await transcribe(recognizer)
            assert caught.value.kind is FailureKind.REJECTED
        assert formats(service) == ["verbose_json", "json"] * 2


@pytest.mark.real_time
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (saying(b"plain text"), FailureKind.BROKEN),
        (saying(b'{"words": []}'), FailureKind.BROKEN),
        (saying(b'{"error": {"code": "429"}}'), FailureKind.RATE_LIMIT),
        (saying(b"{}", status=500), FailureKind.CONNECTIVITY),
    ],
)
async def test_answers_that_are_no_transcription(answer: Answer, kind: FailureKind) -> None:
    async with hearing(answer) as (service, recognizer):
        with pytest.raises(ProviderError) as caught:
            await transcribe(recognizer)
        assert caught.value.kind is kind
        assert len(service.asked) == 1


@pytest.mark.real_time
async def test_an_answer_without_end_is_no_transcription() -> None:
    endless = Endless(b" " * 10_000)
    async with hearing(endless) as (_, recognizer):
        with pytest.raises(ProviderError) as caught:
            await transcribe(recognizer)
        assert caught.value.kind is FailureKind.BROKEN
        await endless.gone.wait()


@pytest.mark.real_time
async def test_an_open_sentence_is_sent_again_and_words_that_two_passes_agree_on_are_given() -> (
    None
):
    texts = ("one", "one two tea", "one two three", "one two three four")
    answers = [answering({"text": text}) for text in texts]
    results: list[Transcript] = []
    async with hearing(*answers, partial_every_ms=500) as (service, recognizer):

        async def speaking() -> AsyncIterator[bytes]:
            for passes in (1, 2, 3):
                yield voice(700)
                # The first pass shows nothing, each later one a word more.
                while len(service.asked) < passes or len(results) < passes - 1:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            yield silence(1000)

        async for result in recognizer.recognize(speaking(), RecognitionOptions()):
            results.append(result)
    assert [(result.text, result.final) for result in results[:2]] == [
        ("one", False),
        ("one two", False),
    ]
    assert (results[-1].text, results[-1].final) == ("one two three four", True)
    lengths_ms = [len(read_wav(asked.file)) // 32 for asked in service.asked]
    assert lengths_ms[:3] == [700, 1400, 2100]


@pytest.mark.real_time
async def test_cancelling_closes_the_connection() -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def hang(request: web.Request, response: web.StreamResponse) -> None:
        asked.set()
        while request.transport is not None:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.001)
        gone.set()

    async with hearing(hang) as (_, recognizer):
        task = asyncio.get_running_loop().create_task(transcribe(recognizer))
        await asked.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await gone.wait()


@pytest.mark.real_time
async def test_connections_are_warm_and_used_again() -> None:
    async with hearing(answering(ANSWER)) as (service, recognizer):
        await recognizer.start()
        for _ in range(3):
            await transcribe(recognizer)
        assert service.warmed_up == len(service.peers) == 1


@pytest.mark.parametrize(
    ("key", "value"), [("max_utterance_ms", 60_000), ("pause_ms", 1), ("partial_every_ms", -1)]
)
def test_wrong_settings_are_named(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{key}"):
        find_factory("asr", "openai")(model="m", **{key: value})


# --- answers --------------------------------------------------------------------------


def words(answer: object, duration_ms: int = 2000) -> list[tuple[str, int, int, str]]:
    found = read_answer(json.dumps(answer).encode(), duration_ms)
    return [(word.text, word.begin_ms, word.end_ms, word.punctuation) for word in found]


def test_times_of_words_and_punctuation_of_the_text() -> None:
    assert words(ANSWER) == [("Hello", 300, 620, ","), ("world", 700, 1100, ".")]


def test_without_words_the_segments_have_the_times() -> None:
    segments = [
        {"text": "你好", "start": 0.1, "end": 0.5},
        {"text": "吗？", "start": 1.0, "end": 1.2},
    ]
    assert words({"text": "你好吗？", "segments": segments}) == [
        ("你", 100, 300, ""),
        ("好", 300, 500, ""),
        ("吗", 1000, 1200, "？"),
    ]


def test_without_times_the_words_share_the_audio() -> None:
    assert words({"text": "one two", "words": None, "segments": []}) == [
        ("one", 0, 1000, ""),
        ("two", 1000, 2000, ""),
    ]


@pytest.mark.parametrize(
    ("no_speech", "logprob", "silent"), [(0.9, -1.5, True), (0.9, -0.2, False), (0.1, -1.5, False)]
)
def test_what_whisper_takes_for_silence_is_nothing(
    no_speech: float, logprob: float, silent: bool
) -> None:
    segment = {"text": "Thank you.", "no_speech_prob": no_speech, "avg_logprob": logprob}
    assert (words({"text": "Thank you.", "segments": [segment]}) == []) is silent


@pytest.mark.parametrize(
    "text", ["Thank you for watching!", "谢谢观看。", "ご視聴ありがとうございました"]
)
@pytest.mark.parametrize(("no_speech", "silent"), [(0.3, True), (0.01, False)])
def test_a_films_sign_off_is_nothing_unless_it_was_surely_said(
    text: str, no_speech: float, silent: bool
) -> None:
    segment = {"text": text, "no_speech_prob": no_speech, "avg_logprob": -0.3}
    assert (words({"text": text, "segments": [segment]}) == []) is silent


def test_a_segment_that_is_silent_does_not_silence_the_others() -> None:
    silent = {"text": "Bye.", "no_speech_prob": 0.9, "avg_logprob": -2}
    assert len(words({"text": "Hello. Bye.", "segments": [{"text": "Hello."}, silent]})) == 2


@pytest.mark.parametrize(
    "answer",
    [
        {"text": "one two"},
        {"text": "one two", "words": "none", "segments": {"text": "x"}, "duration": "2"},
        {
            "text": "one two",
            "words": [None, 7, {"word": 7}],
            "segments": [{"text": None, "start": "a"}],
        },
        {
            "text": "one two",
            "words": [{"word": "one two", "start": None, "end": "x"}],
            "error": None,
        },
        {"segments": [{"text": "one "}, {"text": "two", "no_speech_prob": "high"}]},
        {"text": None, "segments": [{"text": "one two"}]},
    ],
)
def test_the_text_is_enough(answer: object) -> None:
    assert [word for word, *_ in words(answer)] == ["one", "two"]


@pytest.mark.parametrize("answer", [{"text": ""}, {"text": None}, {"text": " "}, {"segments": []}])
def test_nothing_may_have_been_said(answer: object) -> None:
    assert words(answer) == []


def test_half_an_emoji_does_no_harm() -> None:
    assert words({"text": "one \ud83d"})[0][0] == "one"


KEYS = "text words word segments start end no_speech_prob error code".split()
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS), inner),
)


@given(st.binary() | JSON.map(lambda inner: json.dumps(inner).encode()))
def test_any_answer_is_read_or_refused(body: bytes) -> None:
    with suppress(ProviderError):
        read_answer(body, 1000)


@pytest.mark.parametrize(
    ("start", "end"), [("NaN", "Infinity"), ("-1e308", "1e308"), ("0.5", "NaN")]
)
def test_times_that_are_none_do_no_harm(start: str, end: str) -> None:
    body = (
        f'{{"text": "a b", "words": [{{"word": "a b", "start": {start}, "end": {end}}}]}}'.encode()
    )
    one, other = read_answer(body, 1000)
    assert 0 <= one.begin_ms <= one.end_ms <= other.begin_ms <= other.end_ms <= 1000
