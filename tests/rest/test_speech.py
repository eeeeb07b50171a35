"""Text to voice: as events, as a file, through OpenAI's SDK; and the spoken reply of a
chat model.
"""

import asyncio
import base64
import io
import json
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import openai
import pytest

from tests.rest.live import KEY, PROJECT, Answer, Live, PartsModel, serving_live
from voicechat.providers.interfaces import Extras, ReplyFinished, TextDelta, ThoughtDelta
from voicechat.server.rest import speech
from voicechat.store.access import Grant, Quota, Scope
from voicechat.testing.scripted import Failure, ScriptedModel

pytestmark = pytest.mark.real_time

STREAM = f"{PROJECT}/easyllms/voice/synthesize-audio-stream"
WHOLE = f"{PROJECT}/easyllms/voice/synthesize-audio"
VOICE_OUTPUT = "/api/open-apis/v1/chat/completions-with-voice-output"
PCM = {"format": "PCM_16000HZ_MONO_16BIT"}


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    models = {"broken": ScriptedModel(failure=Failure(after=0, calls=99))}
    async with serving_live(tmp_path, models, services=("other",)) as server:
        yield server


def asked(text: list[str] | None = None, **param: object) -> dict[str, object]:
    return {
        "easyllm_id": "default",
        "text": text or ["Good morning."],
        "synthesis_param": PCM | param,
    }


def assert_length(length_ms: float, live: Live) -> None:
    """The synthesiser speaks 10 ms a character; each sentence may be followed by what
    an encoder holds back.
    """
    spoken_ms = 10 * sum(map(len, live.synthesizer.texts))
    assert spoken_ms <= length_ms <= spoken_ms + 10 * len(live.synthesizer.texts)


async def test_frames_are_one_stream_and_the_last_event_says_finish(live: Live) -> None:
    answer = await live.ask(STREAM, asked(["One two. Three.", "四五。"]))
    assert answer.content_type == "text/event-stream; charset=utf-8"
    events = [json.loads(event) for event in answer.events]
    assert [event["status"] for event in events] == ["accepting"] * (len(events) - 1) + ["finish"]
    assert events[-1]["usage"] == {"characters": 19}
    assert events[-1]["audioFrame"] is None
    audio = b"".join(base64.b64decode(event["audioFrame"]) for event in events[:-1])
    assert live.synthesizer.texts == ["One two.", "Three.", "四五。"], (
        "each entry is cut into sentences"
    )
    assert_length(len(audio) / 32, live)


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("MP3_16000HZ_MONO_128KBPS", "audio/mpeg"),
        ("WAV_16000HZ_MONO_16BIT", "audio/wav"),
        ("PCM_16000HZ_MONO_16BIT", "audio/L16; rate=16000; channels=1"),
    ],
)
async def test_the_audio_itself_has_the_type_of_its_format(
    live: Live, name: str, content_type: str
) -> None:
    answer = await live.ask(WHOLE, asked(format=name))
    assert (answer.status, answer.content_type) == (200, content_type)
    assert int(answer.headers["Content-Length"]) == len(answer.content) > 1000


async def test_volume_rate_and_pitch_reach_the_speech(live: Live) -> None:
    text = ["A sentence that is long enough to be measured, and then a little longer."]
    usual = (await live.ask(WHOLE, asked(text))).content
    louder = (await live.ask(WHOLE, asked(text, volume=100))).content
    faster = (await live.ask(WHOLE, asked(text, speechRate=2))).content
    assert max(memoryview(louder).cast("h")) == pytest.approx(
        2 * max(memoryview(usual).cast("h")), rel=0.01
    )
    assert len(faster) == pytest.approx(len(usual) / 2, rel=0.1)
    async with openai.AsyncOpenAI(api_key=KEY, base_url=f"{live.url}/v1", max_retries=0) as client:
        speech = client.audio.speech
        plain = await speech.create(
            model="tts-1", voice="alloy", input=text[0], response_format="pcm"
        )
        quick = await speech.create(
            model="tts-1", voice="alloy", input=text[0], response_format="pcm", speed=2
        )
    assert len(quick.content) == pytest.approx(len(plain.content) / 2, rel=0.1)


async def test_a_wav_file_has_its_true_length(live: Live) -> None:
    answer = await live.ask(WHOLE, asked(format="WAV_16000HZ_MONO_16BIT"))
    with wave.open(io.BytesIO(answer.content)) as file:
        assert file.getframerate() == 16000
        assert_length(file.getnframes() / 16, live)
        assert len(file.readframes(10**9)) == file.getnframes() * 2


@pytest.mark.parametrize("path", [STREAM, WHOLE])
@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"easyllm_id": None}, "easyllm_id"),
        ({"text": None}, "text"),
        ({"text": "Good morning."}, "text"),
        ({"text": []}, "text"),
        ({"text": [" "]}, "text"),
        ({"text": [1]}, "text[0]"),
        ({"text": ["x" * 20_001]}, "text"),
        ({"synthesis_param": None}, "synthesis_param"),
        ({"synthesis_param": {"volume": 101}}, "synthesis_param.volume"),
        ({"synthesis_param": {"volume": "80"}}, "synthesis_param.volume"),
        ({"synthesis_param": {"speechRate": 0.4}}, "synthesis_param.speechRate"),
        ({"synthesis_param": {"pitchRate": 2.1}}, "synthesis_param.pitchRate"),
        ({"synthesis_param": {"format": "MP3"}}, "synthesis_param.format"),
        ({"synthesis_param": {"voice": 1}}, "synthesis_param.voice"),
        ({"synthesis_param": {"model": 1}}, "synthesis_param.model"),
    ],
)
async def test_every_field_outside_its_range_is_named(
    live: Live, path: str, change: dict[str, object], names: str
) -> None:
    answer = await live.ask(path, asked() | change)
    assert (answer.status, answer.json["status"]) == (400, 40003)
    assert answer.json["message"].startswith(f"{names}: ")
    assert answer.json["timestamp"] > 1_700_000_000_000
    assert not live.synthesizer.texts


async def test_what_cannot_be_spoken_and_what_fails_are_told_apart(live: Live) -> None:
    for text in ("!!! ...", "\u009a\r", "<think>hidden</think>"):
        nothing = await live.ask(WHOLE, asked([text]))
        assert (nothing.status, nothing.json["message"]) == (
            400,
            "text: there is nothing in it that can be spoken",
        )
    unknown = await live.ask(WHOLE, asked() | {"easyllm_id": "none"})
    assert (unknown.status, unknown.json["status"]) == (404, 40401)
    assert unknown.json["message"].startswith('easyllm_id: "none" is not one of default, ')
    live.synthesizer.failure = Failure(after=0, calls=99)
    for path in (STREAM, WHOLE):
        failed = await live.ask(path, asked())
        assert (failed.status, failed.json["status"]) == (502, 50203)


async def test_a_failure_in_the_middle_is_the_last_event(live: Live) -> None:
    live.synthesizer.failure = Failure(after=1, calls=99)
    answer = await live.ask(STREAM, asked(["A long sentence, of some chunks."]))
    assert answer.status == 200
    last = json.loads(answer.events[-1])
    assert (last["status"], last["audioFrame"]) == (50203, None)


async def test_a_long_answer_in_one_piece_is_sent_while_it_is_made(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech, "HELD_BYTES", 10_000)
    short, long = asked(), asked(["A long sentence that goes on. " * 3])
    assert "Content-Length" in (await live.ask(WHOLE, short)).headers
    answer = await live.ask(WHOLE, long)
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert answer.headers["X-Accel-Buffering"] == "no"
    live.synthesizer.texts = live.synthesizer.texts[1:]
    assert_length(len(answer.content) / 32, live)
    monkeypatch.setattr(speech, "HELD_BYTES", 10)
    live.synthesizer.failure = Failure(after=1, calls=99)
    with pytest.raises(aiohttp.ClientPayloadError):
        await live.ask(WHOLE, asked(["One sentence that is long enough to be begun. " * 4]))


async def test_an_answer_that_nobody_reads_is_cut_off_and_counts_until_then(tmp_path: Path) -> None:
    async with serving_live(tmp_path, limits={"write_ms": 1000}) as live:
        key = live.store.create_key("a", Grant(quota=Quota(max_sessions=1)))[1]
        format_name = {"format": "WAV_48000HZ_MONO_16BIT"}
        body = json.dumps(
            asked(["A sentence of words. " * 900]) | {"synthesis_param": format_name}
        ).encode()
        head = (
            f"POST {WHOLE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: "
            f"{len(body)}\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", urlsplit(live.url).port, limit=1024
        )
        writer.write(head.encode() + body)
        await reader.readline()
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        assert live.running.backend.requests == 1
        refused = await live.ask(WHOLE, asked(), key=key)
        assert (refused.status, refused.json["status"]) == (429, 42901)
        async with asyncio.timeout(120):
            while live.running.backend.requests:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.05)
        assert len(live.synthesizer.texts) < 900, "it was not all made"
        writer.close()
        assert (await live.ask(WHOLE, asked(), key=key)).status == 200


async def test_openais_sdk_gets_its_speech(live: Live) -> None:
    async with openai.AsyncOpenAI(api_key=KEY, base_url=f"{live.url}/v1", max_retries=0) as client:
        speech = await client.audio.speech.create(
            model="tts-1", voice="alloy", input="Good morning.", response_format="pcm"
        )
        assert_length(len(speech.content) / 48, live)
        mp3 = await client.audio.speech.create(
            model="default", voice="scripted", input="Good morning."
        )
        assert mp3.response.headers["Content-Type"] == "audio/mpeg"
        assert mp3.content[0] == 0xFF
        with pytest.raises(openai.NotFoundError):
            await client.audio.speech.create(model="none", voice="alloy", input="x")
        with pytest.raises(openai.BadRequestError, match="response_format"):
            await client.audio.speech.create(
                model="tts-1", voice="alloy", input="x", response_format="flac"
            )
        with pytest.raises(openai.BadRequestError, match="input"):
            await client.audio.speech.create(model="tts-1", voice="alloy", input="x" * 4097)


async def test_speech_that_breaks_off_does_not_look_whole(live: Live) -> None:
    live.synthesizer.failure = Failure(after=1, calls=99)
    async with openai.AsyncOpenAI(api_key=KEY, base_url=f"{live.url}/v1", max_retries=0) as client:
        with pytest.raises(openai.APIConnectionError):
            await client.audio.speech.create(
                model="tts-1",
                voice="alloy",
                input="A long sentence, of some chunks.",
                response_format="pcm",
            )


# --- chat completions with voice output -----------------------------------------------


async def speak(live: Live, chat: dict[str, object], speech: dict[str, object]) -> Answer:
    return await live.ask(
        VOICE_OUTPUT, {"chat_completion_req": chat, "speech_synthesis_req": speech}
    )


CHAT = {"model": "default", "messages": [{"role": "user", "content": "hello"}], "stream": True}


async def test_chunks_and_frames_of_a_spoken_reply(live: Live) -> None:
    answer = await speak(live, CHAT, {"easyllm_id": "default", "synthesis_param": PCM})
    events = [json.loads(event) for event in answer.events]
    chunks = [event for event in events if "choices" in event]
    frames = [event for event in events if "audioFrame" in event]
    assert len(chunks) + len(frames) == len(events)
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert text == "Hello there. How are you?"
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert [frame["status"] for frame in frames] == ["accepting"] * (len(frames) - 1) + ["finish"]
    assert events[-1]["usage"] == {"characters": 24}
    assert live.synthesizer.texts == ["Hello there.", "How are you?"]


async def test_the_first_sentence_is_spoken_while_the_model_still_writes(live: Live) -> None:
    live.model.delta_ms = 200
    answer = await speak(live, CHAT, {"easyllm_id": "default", "synthesis_param": PCM})
    kinds = ["text" if "choices" in json.loads(event) else "audio" for event in answer.events]
    assert kinds.index("audio") < len(kinds) - 1 - kinds[::-1].index("text")


@pytest.mark.parametrize(
    ("chat", "speech", "status", "names"),
    [
        (CHAT | {"stream": False}, {"easyllm_id": "default"}, 400, "chat_completion_req.stream"),
        (
            CHAT | {"temperature": 9},
            {"easyllm_id": "default"},
            400,
            "chat_completion_req.temperature",
        ),
        (CHAT, {}, 400, "speech_synthesis_req.easyllm_id"),
        (CHAT, {"easyllm_id": "none"}, 404, "speech_synthesis_req.easyllm_id"),
        (CHAT | {"model": "none"}, {"easyllm_id": "default"}, 404, "chat_completion_req.model"),
        (
            CHAT,
            {"easyllm_id": "default", "synthesis_param": {"format": "MP3"}},
            400,
            "speech_synthesis_req.synthesis_param.format",
        ),
    ],
)
async def test_a_wrong_field_is_named_in_openais_form(
    live: Live, chat: dict[str, object], speech: dict[str, object], status: int, names: str
) -> None:
    answer = await speak(live, chat, speech)
    assert answer.status == status
    assert answer.json["error"]["param"] == names


async def test_failures_of_either_service_are_told(live: Live) -> None:
    before = await speak(live, CHAT | {"model": "broken"}, {"easyllm_id": "default"})
    assert (before.status, before.json["error"]["code"]) == (502, "llm_failed")
    live.synthesizer.failure = Failure(after=0, calls=99)
    after = await speak(live, CHAT, {"easyllm_id": "default"})
    assert json.loads(after.events[-1])["error"]["code"] == "tts_failed"


NO_SPEECH = "<thinking>secret</thinking>It&#8217;s $\\pi$ <answer>now</answer>.<|im_end|>"


@pytest.mark.parametrize("path", [STREAM, WHOLE, "/v1/audio/speech"])
async def test_what_is_no_speech_is_not_spoken(path: str, live: Live) -> None:
    body: dict[str, object] = {"model": "default", "input": NO_SPEECH, "response_format": "pcm"}
    answer = await live.ask(path, body if "v1/audio" in path else asked([NO_SPEECH]))
    assert answer.status == 200
    assert live.synthesizer.texts == ["It’s pi now."]


async def test_thoughts_and_calls_are_neither_told_nor_spoken(tmp_path: Path) -> None:
    reply = [NO_SPEECH[at : at + 3] for at in range(0, len(NO_SPEECH), 3)]
    async with serving_live(tmp_path, {"thinker": ScriptedModel(replies=[reply])}) as live:
        messages = [{"role": "user", "content": "x"}]
        body = {
            "chat_completion_req": {"model": "thinker", "messages": messages},
            "speech_synthesis_req": {"easyllm_id": "default", "synthesis_param": PCM},
        }
        events = [json.loads(event) for event in (await live.ask(VOICE_OUTPUT, body)).events]
        chunks = [
            event["choices"][0]["delta"].get("content") or ""
            for event in events
            if event.get("choices")
        ]
        assert "".join(chunks) == "It&#8217;s $\\pi$ <answer>now</answer>."
        assert live.synthesizer.texts == ["It’s pi now."]


async def test_what_the_models_server_said_besides_stands_in_the_chunks_of_a_spoken_reply(
    tmp_path: Path,
) -> None:
    telling = PartsModel(
        [
            ThoughtDelta("Hm."),
            TextDelta(
                "Good day.", Extras(choice={"logprobs": {"content": [{"token": "Good day."}]}})
            ),
            Extras(choice={"refs": [{"index": 1}]}),
            ReplyFinished(
                extras=Extras(
                    choice={"refs": [{"index": 1}, {"index": 2}]}, answer={"mood": "glad"}
                )
            ),
        ]
    )
    async with serving_live(tmp_path, {"telling": telling}) as live:
        speech = {"easyllm_id": "default", "synthesis_param": PCM}
        chat = {"model": "telling", "messages": [{"role": "user", "content": "x"}]}
        answer = await live.ask(
            VOICE_OUTPUT, {"chat_completion_req": chat, "speech_synthesis_req": speech}
        )
    chunks = [event for event in map(json.loads, answer.events) if "choices" in event]
    choices = [chunk["choices"][0] for chunk in chunks]
    assert "".join(choice["delta"].get("content") or "" for choice in choices) == "Good day."
    assert "".join(choice["delta"].get("reasoning_content", "") for choice in choices) == "Hm."
    assert [choice["logprobs"] for choice in choices if "logprobs" in choice] == [
        {"content": [{"token": "Good day."}]}
    ]
    assert choices[-1]["finish_reason"] == "stop"
    assert choices[-1]["refs"] == [{"index": 1}, {"index": 2}]
    assert chunks[-1]["mood"] == "glad"
    assert live.synthesizer.texts == ["Good day."], "thoughts are not spoken"


async def test_speech_in_openais_events(live: Live) -> None:
    asked_for = {"model": "tts-1", "input": "Good day.", "response_format": "pcm"}
    plain = await live.ask("/v1/audio/speech", asked_for)
    streamed = await live.ask("/v1/audio/speech", asked_for | {"stream_format": "sse"})
    assert streamed.content_type == "text/event-stream; charset=utf-8"
    events = [json.loads(event) for event in streamed.events]
    assert [event["type"] for event in events] == ["speech.audio.delta"] * (len(events) - 1) + [
        "speech.audio.done"
    ]
    assert b"".join(base64.b64decode(event["audio"]) for event in events[:-1]) == plain.content
    live.synthesizer.failure = Failure(after=0, calls=99)
    failed = await live.ask("/v1/audio/speech", asked_for | {"stream_format": "sse"})
    assert (failed.status, failed.json["error"]["code"]) == (502, "tts_failed")


async def test_a_spoken_reply_is_there_for_a_project_too(live: Live) -> None:
    key = live.store.create_key("a", Grant(scope=Scope(projects=("q",))))[1]
    chat = {"model": "default", "messages": [{"role": "user", "content": "x"}]}
    body = {"chat_completion_req": chat, "speech_synthesis_req": {"easyllm_id": "default"}}
    for project, status in (("q", 200), ("p", 401)):
        path = f"/api/open-apis/projects/{project}/chat/completions-with-voice-output"
        assert (await live.ask(path, body, key=key)).status == status
