"""Chat completions through OpenAI's own SDK, and what the SDK does not show."""

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.rest.live import KEY, Live, PartsModel, serving_live
from voicechat.errors import FailureKind
from voicechat.providers.interfaces import ChatModel, Extras, ReplyFinished, TextDelta, ThoughtDelta
from voicechat.server.rest.chat import COMPLETION_PATHS
from voicechat.session.types import ToolCall
from voicechat.testing.scripted import Failure, ScriptedModel

pytestmark = pytest.mark.real_time

PATH = "/v1/chat/completions"
DOCUMENT = "/api/open-apis/v1/chat/completions"
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALLING = PartsModel(
    [
        ToolCall(0, "call_1", "get_weather", ""),
        ToolCall(0, None, None, '{"city":'),
        ToolCall(1, "call_2", "get_weather", "{}"),
        ToolCall(0, None, None, '"Paris"}'),
        ReplyFinished("tool_calls", 11, 7),
    ]
)
TELLING = PartsModel(
    [
        ThoughtDelta("Hm. "),
        ThoughtDelta("Yes."),
        TextDelta(
            "Hi",
            Extras(
                choice={"logprobs": {"content": [{"token": "Hi"}]}},
                answer={"system_fingerprint": "fp"},
            ),
        ),
        Extras(choice={"refs": [{"index": 1}]}),
        Extras(answer={"service_tier": "flex"}),
        TextDelta(
            "!",
            Extras(choice={"logprobs": {"content": [{"token": "!"}]}}, message={"mood": "glad"}),
        ),
        ReplyFinished(
            usage={
                "prompt_tokens": 1,
                "completion_tokens": 2,
                "total_tokens": 3,
                "details": {"x": 1},
            },
            extras=Extras(choice={"refs": [{"index": 1}, {"index": 2}]}, answer={"id": "theirs"}),
        ),
    ]
)
COUNTING = PartsModel([TextDelta("Hi"), TextDelta(" you"), ReplyFinished("length", 3, 2)])
ONE = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    models: dict[str, ChatModel] = {
        "calling": CALLING,
        "counting": COUNTING,
        "telling": TELLING,
        "chinese": PartsModel([TextDelta("你好")]),
        "broken": ScriptedModel(failure=Failure(after=0, calls=99, kind=FailureKind.REJECTED)),
        "breaking": ScriptedModel(
            failure=Failure(after=1, calls=99, kind=FailureKind.CONNECTIVITY)
        ),
        "mute": ScriptedModel(failure=Failure(kind=None)),
    }
    async with serving_live(tmp_path, models, {"first_token_ms": 300}) as server:
        yield server


@pytest.fixture
async def client(live: Live) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        api_key=KEY, base_url=f"{live.url}/api/open-apis/v1", max_retries=0
    ) as client:
        yield client


async def test_a_reply_in_one_piece(live: Live, client: openai.AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(
        model="default", messages=[{"role": "user", "content": "hello"}], temperature=0.5, seed=7
    )
    assert reply.object == "chat.completion"
    assert reply.model == "default"
    assert reply.choices[0].message.content == "Hello there. How are you?"
    assert reply.choices[0].message.role == "assistant"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is None, "a model that does not count"
    [asked] = live.model.requests
    assert asked.messages == ({"role": "user", "content": "hello"},)
    assert asked.options == {"temperature": 0.5, "seed": 7, "top_p": 1.0}


async def test_the_documents_defaults_hold_on_its_addresses_and_openais_leave_them_to_the_model(
    live: Live,
) -> None:
    for path, expected in ((DOCUMENT, {"temperature": 1.0, "top_p": 1.0}), (PATH, {})):
        answer = await live.ask(
            path, {"model": "default", "messages": ONE, "temperature": None, "top_p": ""}
        )
        assert answer.status == 200
        assert live.model.requests[-1].options == expected


async def test_usage_and_the_models_own_finish_reason_are_passed_on(
    client: openai.AsyncOpenAI,
) -> None:
    reply = await client.chat.completions.create(
        model="counting", messages=[{"role": "user", "content": "x"}]
    )
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (
        3,
        2,
        5,
    )
    assert reply.choices[0].finish_reason == "length"


async def test_a_streamed_reply(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="counting", messages=[{"role": "user", "content": "x"}], stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    chunks = [chunk async for chunk in stream]
    assert [chunk.choices[0].delta.content for chunk in chunks if chunk.choices] == [
        "Hi",
        " you",
        None,
    ]
    assert [chunk.choices[0].delta.role for chunk in chunks if chunk.choices] == [
        "assistant",
        None,
        None,
    ]
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices] == [
        None,
        None,
        "length",
    ]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 5
    assert len({chunk.id for chunk in chunks}) == 1


async def test_events_stand_as_the_document_writes_them(live: Live) -> None:
    answer = await live.ask(DOCUMENT, {"model": "default", "messages": ONE, "stream": True})
    assert answer.content_type == "text/event-stream; charset=utf-8"
    *chunks, done = answer.events
    assert done == " [DONE]"
    assert all(chunk.startswith("{") for chunk in chunks)
    first, *others, last = [json.loads(chunk) for chunk in chunks]
    assert set(first) == {"id", "object", "created", "model", "choices"}
    [choice] = first["choices"]
    assert list(choice) == ["index", "delta", "finish_reason"]
    assert choice["delta"]["role"] == "assistant"
    assert choice["delta"]["content"]
    assert choice["finish_reason"] is None
    for chunk in others:
        assert set(chunk["choices"][0]["delta"]) == {"content", "role"}
        assert chunk["choices"][0]["delta"]["role"] is None
    assert last["choices"] == [
        {"index": 0, "delta": {"content": None, "role": None}, "finish_reason": "stop"}
    ]


async def test_events_on_openais_addresses_stand_as_openai_writes_them(live: Live) -> None:
    answer = await live.ask(PATH, {"model": "counting", "messages": ONE, "stream": True})
    assert answer.content_type == "text/event-stream; charset=utf-8"
    *chunks, done = answer.events
    assert done == " [DONE]"
    assert all(chunk.startswith(" {") for chunk in chunks)
    assert [json.loads(chunk)["choices"][0]["delta"] for chunk in chunks] == [
        {"content": "Hi", "role": "assistant"},
        {"content": " you"},
        {},
    ]


async def test_what_is_absent_is_not_null(live: Live) -> None:
    whole = await live.ask(DOCUMENT, {"model": "default", "messages": ONE})
    assert set(whole.json) == {"id", "object", "created", "model", "choices"}
    assert set(whole.json["choices"][0]) == {"index", "message", "finish_reason"}
    assert set(whole.json["choices"][0]["message"]) == {"role", "content"}
    asked = {
        "model": "default",
        "messages": ONE,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert "usage" not in (await live.ask(PATH, asked)).content.decode(), (
        "a model that does not count"
    )


@pytest.mark.parametrize("path", [PATH, DOCUMENT])
async def test_pieces_of_a_tool_call_are_added_up_without_a_thought(live: Live, path: str) -> None:
    answer = await live.ask(path, {"model": "calling", "messages": ONE, "stream": True})
    pieces = [
        piece
        for event in answer.events[:-1]
        for piece in json.loads(event)["choices"][0]["delta"].get("tool_calls", [])
    ]
    assert pieces == [
        {
            "index": 0,
            "id": "call_1",
            "type": "function",
            "function": {"name": "get_weather", "arguments": ""},
        },
        {"index": 0, "function": {"arguments": '{"city":'}},
        {
            "index": 1,
            "id": "call_2",
            "type": "function",
            "function": {"name": "get_weather", "arguments": "{}"},
        },
        {"index": 0, "function": {"arguments": '"Paris"}'}},
    ]


async def test_the_sdks_stream_helper_gathers_tool_calls(
    client: openai.AsyncOpenAI, live: Live
) -> None:
    openais: Any = client.with_options(base_url=f"{live.url}/v1")
    documents: Any = client
    for each in (documents, openais):
        async with each.chat.completions.stream(
            model="calling", messages=ONE, tools=[WEATHER]
        ) as stream:
            async for _ in stream:
                pass
            final = await stream.get_final_completion()
        assert [
            (call.id, call.function.arguments) for call in final.choices[0].message.tool_calls
        ] == [
            ("call_1", '{"city":"Paris"}'),
            ("call_2", "{}"),
        ]


async def test_what_the_models_server_said_besides_is_passed_on(live: Live) -> None:
    streamed = await live.ask(PATH, {"model": "telling", "messages": ONE, "stream": True})
    chunks = [json.loads(event) for event in streamed.events[:-1]]
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"] == {"reasoning_content": "Hm. ", "role": "assistant"}
    assert choices[1]["delta"] == {"reasoning_content": "Yes."}
    assert (choices[2]["delta"]["content"], choices[2]["logprobs"]) == (
        "Hi",
        {"content": [{"token": "Hi"}]},
    )
    assert chunks[2]["system_fingerprint"] == "fp"
    assert choices[3]["refs"] == [{"index": 1}]
    assert choices[4]["delta"] == {"content": "!", "mood": "glad"}
    assert chunks[4]["service_tier"] == "flex", (
        "in the next chunk, and not in one that says nothing else"
    )
    assert choices[5] == {
        "index": 0,
        "delta": {},
        "finish_reason": "stop",
        "refs": [{"index": 1}, {"index": 2}],
    }

    whole = (await live.ask(PATH, {"model": "telling", "messages": ONE})).json
    [choice] = whole["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "content": "Hi!",
        "reasoning_content": "Hm. Yes.",
        "mood": "glad",
    }
    assert choice["logprobs"] == {"content": [{"token": "Hi"}, {"token": "!"}]}
    assert choice["refs"] == [{"index": 1}, {"index": 2}]
    assert whole["system_fingerprint"] == "fp"
    assert whole["id"].startswith("chatcmpl-"), "ours, whatever the server called it"
    assert whole["usage"] == {
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "total_tokens": 3,
        "details": {"x": 1},
    }


async def test_parameters_that_are_not_known_go_to_the_model(live: Live) -> None:
    unknown = {"reasoning_effort": "low", "top_k": 5, "logit_bias": {"1": 2}, "user": "u"}
    for path in (PATH, DOCUMENT):
        asked = {
            "model": "default",
            "messages": ONE,
            "n": 1,
            "stream_options": {},
            "metadata": None,
        }
        assert (await live.ask(path, asked | unknown)).status == 200
        assert {name: live.model.requests[-1].options.get(name) for name in unknown} == unknown
        assert not live.model.requests[-1].options.keys() & asked.keys()


@pytest.mark.parametrize("path", COMPLETION_PATHS)
async def test_every_address_of_chat_completions_answers(live: Live, path: str) -> None:
    answer = await live.ask(path.format(project="p"), {"model": "default", "messages": ONE})
    assert (answer.status, answer.json["choices"][0]["message"]["content"]) == (
        200,
        "Hello there. How are you?",
    )


async def test_the_documents_first_client_is_served(live: Live) -> None:
    """It calls the model ``model_id``, sends null for what is not set, and reads each
    line of a stream as JSON.
    """
    nulls = dict.fromkeys(
        ("frequency_penalty", "temperature", "max_tokens", "stop", "response_format")
    )
    asked = {"model_id": "default", "messages": ONE, **nulls}
    path = "/api/open-apis/projects/p/chat/completions"
    whole = await live.ask(path, asked | {"stream": False})
    assert whole.json["choices"][0]["message"]["content"] == "Hello there. How are you?"
    assert "model_id" not in live.model.requests[-1].options
    streamed = await live.ask(path, asked | {"stream": True})
    lines = [line for line in streamed.content.decode().splitlines() if line.strip()]
    chunks = [json.loads(line.replace("data:", "").strip()) for line in lines]
    assert (
        "".join(chunk["choices"][0]["delta"]["content"] or "" for chunk in chunks)
        == "Hello there. How are you?"
    )
    missing = await live.ask(path, {"messages": ONE})
    assert missing.json["error"]["message"] == "model: must be present"
    assert missing.json["message"] == "model: must be present", "where that client looks"


async def test_a_client_that_decodes_by_the_label_reads_chinese(live: Live) -> None:
    streamed = await live.ask(DOCUMENT, {"model": "chinese", "messages": ONE, "stream": True})
    charset = streamed.content_type.partition("charset=")[2] or "latin-1"
    assert "你好" in streamed.content.decode(charset)


async def test_an_agents_model_answers_by_its_instructions(tmp_path: Path) -> None:
    config = (
        '[agents.hotel]\ninstructions = "You are {device}the hotel."\nllm = "default"\nalso = '
        '["gpt-hotel"]\n'
    )
    async with serving_live(tmp_path, config=config) as live:
        for name in ("hotel", "gpt-hotel"):
            await live.ask(PATH, {"model": name, "messages": ONE})
            assert live.model.requests[-1].messages == (
                {"role": "system", "content": "You are the hotel."},
                *ONE,
            )
        listed = (await live.ask("/v1/models", method="GET")).json
        assert [model["id"] for model in listed["data"]] == ["default", "gpt-hotel", "hotel"]
        await live.ask(PATH, {"model": "default", "messages": ONE})
        assert live.model.requests[-1].messages == tuple(ONE)


async def test_tool_calls_whole_and_streamed_say_the_same(client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(
        model="calling",
        messages=[{"role": "user", "content": "x"}],
        tools=[WEATHER],
        tool_choice="auto",
    )
    calls = whole.choices[0].message.tool_calls
    assert calls is not None
    assert whole.choices[0].finish_reason == "tool_calls"
    assert [
        (call.id, call.function.name, call.function.arguments)
        for call in calls
        if call.type == "function"
    ] == [
        ("call_1", "get_weather", '{"city":"Paris"}'),
        ("call_2", "get_weather", "{}"),
    ]
    assert CALLING.requests[-1].options["tools"] == [WEATHER]
    assert CALLING.requests[-1].options["tool_choice"] == "auto"

    stream = await client.chat.completions.create(
        model="calling", messages=[{"role": "user", "content": "x"}], stream=True
    )
    arguments: dict[int, str] = {}
    async for chunk in stream:
        for call in chunk.choices[0].delta.tool_calls or []:
            assert call.function is not None
            arguments[call.index] = arguments.get(call.index, "") + (call.function.arguments or "")
    assert arguments == {0: '{"city":"Paris"}', 1: "{}"}


async def test_the_answer_of_a_tool_and_images_reach_the_model_untouched(
    live: Live, client: openai.AsyncOpenAI
) -> None:
    image = {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64,AAAA" + "A" * 1_000_000, "detail": "low"},
    }
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "what is this"}, image]},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c", "content": "20"},
    ]
    await client.chat.completions.create(model="default", messages=messages)  # type: ignore[arg-type]
    assert live.model.requests[-1].messages == tuple(messages)


async def test_the_sdk_raises_its_own_exceptions(live: Live, client: openai.AsyncOpenAI) -> None:
    with pytest.raises(
        openai.NotFoundError, match='"none" is not one of breaking, broken'
    ) as unknown:
        await client.chat.completions.create(
            model="none", messages=[{"role": "user", "content": "x"}]
        )
    assert unknown.value.code == "model_not_found"
    with pytest.raises(
        openai.BadRequestError, match=r"temperature: 3\.0 is not between 0 and 2"
    ) as bad:
        await client.chat.completions.create(
            model="default", messages=[{"role": "user", "content": "x"}], temperature=3
        )
    assert bad.value.param == "temperature"
    with pytest.raises(openai.AuthenticationError, match="valid key"):
        await client.with_options(api_key="wrong").models.list()
    with pytest.raises(
        openai.InternalServerError, match="the chat model failed: rejected"
    ) as failed:
        await client.chat.completions.create(
            model="broken", messages=[{"role": "user", "content": "x"}]
        )
    assert failed.value.status_code == 502
    with pytest.raises(openai.InternalServerError, match="the chat model failed: timeout"):
        await client.chat.completions.create(
            model="mute", messages=[{"role": "user", "content": "x"}], stream=True
        )


async def test_a_failure_in_the_middle_of_a_stream_is_its_last_event(
    live: Live, client: openai.AsyncOpenAI
) -> None:
    answer = await live.ask(PATH, {"model": "breaking", "messages": ONE, "stream": True})
    assert answer.status == 200
    assert (
        json.loads(answer.events[-1])["error"]["message"] == "the chat model failed: connectivity"
    )
    stream = await client.chat.completions.create(
        model="breaking", messages=[{"role": "user", "content": "x"}], stream=True
    )
    with pytest.raises(openai.APIError, match="connectivity"):
        async for _ in stream:
            pass


async def test_a_bug_is_told_in_openais_form_and_without_its_words(
    live: Live,
    client: openai.AsyncOpenAI,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def bug(*_: object, **__: object) -> None:
        raise LookupError("a secret of the house")

    monkeypatch.setattr("voicechat.server.rest.chat.Completion", bug)
    with pytest.raises(openai.InternalServerError) as failed:
        await client.chat.completions.create(
            model="default", messages=[{"role": "user", "content": "x"}]
        )
    assert failed.value.status_code == 500
    assert failed.value.code == "internal"
    assert failed.value.body == {
        "message": "internal error",
        "type": "server_error",
        "param": None,
        "code": "internal",
    }
    assert "LookupError" in caplog.text


async def test_the_models_are_listed(live: Live, client: openai.AsyncOpenAI) -> None:
    listed = [model.id async for model in await client.models.list()]
    assert listed == sorted(live.models)


async def test_a_model_is_looked_up_by_name(
    live: Live, client: openai.AsyncOpenAI, tmp_path: Path
) -> None:
    assert (await client.models.retrieve("calling")).id == "calling"
    with pytest.raises(openai.NotFoundError, match="is not one of"):
        await client.models.retrieve("gpt-4o")
    async with serving_live(tmp_path) as alone:
        asked = await alone.ask("/v1/models/org%2Fgpt-4o", method="GET")
        assert (asked.status, asked.json["id"]) == (200, "org/gpt-4o"), "it would be served"


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"model": ""}, "model"),
        ({"model": 1}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"frequency_penalty": -2.1}, "frequency_penalty"),
        ({"logprobs": 1}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"tools": [{"type": "retrieval", "function": {"name": "f"}}]}, "tools[0].type"),
        ({"thinking": {"type": "maybe"}}, "thinking.type"),
        (
            {"chat_template_kwargs": {"enable_thinking": "no"}},
            "chat_template_kwargs.enable_thinking",
        ),
        ({"enable_thinking": "no"}, "enable_thinking"),
        ({"n": 2}, "n"),
    ],
)
async def test_every_field_outside_its_range_is_named(
    live: Live, change: dict[str, object], names: str
) -> None:
    answer = await live.ask(PATH, {"model": "default", "messages": ONE} | change)
    assert answer.status == 400, answer.content
    assert answer.json["error"]["message"].startswith(f"{names}: ")
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert not live.model.requests


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"model": NaN}', b"\xff", b'{"a":' * 100])
async def test_what_is_no_json_object_is_refused(live: Live, body: bytes) -> None:
    answer = await live.ask(PATH, body)
    assert answer.status == 400
    assert answer.json["error"]["code"] == "malformed"


async def test_a_byte_order_mark_before_the_body_is_no_part_of_it(live: Live) -> None:
    body = b"\xef\xbb\xbf" + json.dumps({"model": "default", "messages": ONE}).encode()
    assert (await live.ask(PATH, body)).status == 200


async def test_a_body_beyond_the_limit_is_refused(live: Live) -> None:
    answer = await live.ask(PATH, io.BytesIO(b" " * 9_000_000))
    assert answer.status == 413
