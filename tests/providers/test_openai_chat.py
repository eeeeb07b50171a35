import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import MappingProxyType

import orjson
import pytest
from aiohttp import web

from tests.providers.openai_service import Endless, Service, cut_off, saying, serving
from voicechat.errors import CONTEXT_TOO_LONG, FailureKind, ProviderError, RequestRefusedError
from voicechat.providers.interfaces import (
    ChatRequest,
    ReplyFinished,
    ReplyPart,
    TextDelta,
    ThoughtDelta,
)
from voicechat.providers.openai import open_chat_model
from voicechat.providers.openai_chat import (
    PASS_BYTES,
    PIECE_CHARACTERS,
    OpenAIChatModel,
    _written,
)
from voicechat.session.types import ToolCall

pytestmark = pytest.mark.real_time

ASKED = ChatRequest(
    messages=({"role": "user", "content": "你好"},), options={"temperature": 0.5, "model": "mine"}
)
USAGE = {"prompt_tokens": 3, "completion_tokens": 2}
REPLY = [TextDelta("你"), TextDelta("好"), ReplyFinished("stop", 3, 2, USAGE)]
EVENTS = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "你"}}]},
    {"choices": [{"index": 0, "delta": {"content": "好"}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": USAGE},
]
BODY = "".join(
    f"data: {json.dumps(event, ensure_ascii=False)}\r\n\r\n" for event in EVENTS
).encode()
DONE = b"data: [DONE]\n\n"
FIRST = BODY.split(b"\r\n\r\n")[0] + b"\r\n\r\n"


@asynccontextmanager
async def talking() -> AsyncIterator[tuple[Service, OpenAIChatModel]]:
    async with serving() as service:
        service.answers = [saying(BODY + DONE)]
        model = open_chat_model(model="m", base_url=service.base_url, api_key="secret")
        try:
            yield service, model
        finally:
            await model.aclose()


async def ask(model: OpenAIChatModel, request: ChatRequest = ASKED) -> list[ReplyPart]:
    return [part async for part in model.reply(request)]


async def failure(model: OpenAIChatModel, request: ChatRequest = ASKED) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await ask(model, request)
    return caught.value


async def test_a_reply_with_its_request() -> None:
    async with talking() as (service, model):
        assert await ask(model) == REPLY
        assert [asked.body for asked in service.asked] == [
            {
                "model": "m",
                "messages": [{"role": "user", "content": "你好"}],
                "stream": True,
                "stream_options": {"include_usage": True},
                "temperature": 0.5,
            }
        ]
        assert service.asked[0].authorization == "Bearer secret"


async def test_a_reply_in_single_bytes() -> None:
    async with talking() as (service, model):
        service.answers = [saying(*(bytes([byte]) for byte in BODY + DONE))]
        assert await ask(model) == REPLY


async def test_text_is_given_out_before_the_reply_is_complete() -> None:
    heard = asyncio.Event()

    async def answer(request: web.Request, response: web.StreamResponse) -> None:
        await saying(FIRST)(request, response)
        await heard.wait()
        await response.write(DONE)

    async with talking() as (service, model):
        service.answers = [answer]
        reply = model.reply(ASKED)
        assert await anext(reply) == TextDelta("你")
        heard.set()
        assert [part async for part in reply] == [ReplyFinished()]


async def test_the_connection_is_used_again_although_the_body_ends_late() -> None:
    async with talking() as (service, model):
        service.answers = [saying(BODY + DONE, pause_s=0.01)]
        for _ in range(3):
            await ask(model)
        assert len(service.peers) == 1


async def test_the_first_reply_finds_the_connection_warm() -> None:
    async with talking() as (service, model):
        await model.start()
        assert await ask(model) == REPLY
        assert service.warmed_up == len(service.peers) == 1


async def test_the_end_of_the_body_may_stand_for_done() -> None:
    async with talking() as (service, model):
        service.answers = [saying(BODY)]
        assert await ask(model) == REPLY


async def test_a_server_that_holds_the_end_back_does_not_hold_the_reply() -> None:
    async with talking() as (service, model):
        service.answers = [saying(BODY + DONE, pause_s=60)]
        assert await ask(model) == REPLY


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", FailureKind.CONNECTIVITY),
        (BODY[:90], FailureKind.CONNECTIVITY),
        (BODY[:120], FailureKind.CONNECTIVITY),
        (b"data: <html>\n\n", FailureKind.BROKEN),
        (b"<html>not found</html>", FailureKind.CONNECTIVITY),
        (b"x" * 2_000_000, FailureKind.BROKEN),
        (b'data: {"error": {"type": "server_error"}}\n\n', FailureKind.CONNECTIVITY),
    ],
)
async def test_bodies_that_are_no_reply(body: bytes, kind: FailureKind) -> None:
    async with talking() as (service, model):
        service.answers = [saying(body)]
        assert (await failure(model)).kind is kind


async def test_an_error_in_one_piece_is_told_as_it_says() -> None:
    async with talking() as (service, model):
        body = b'{"error": {"code": "rate_limit_exceeded"}}'
        service.answers = [saying(body, content_type="application/json; charset=utf-8")]
        assert (await failure(model)).kind is FailureKind.RATE_LIMIT


@pytest.mark.parametrize("label", ["application/json", "text/event-stream", "text/plain"])
@pytest.mark.parametrize("status", [200, 201])
async def test_an_answer_in_one_piece_is_a_reply_whatever_its_label(
    label: str, status: int
) -> None:
    whole = {
        "object": "chat.completion",
        "choices": [{"message": {"content": "whole"}, "finish_reason": "stop"}],
    }
    async with talking() as (service, model):
        body = json.dumps(whole).encode()
        service.answers = [saying(body[:9], body[9:], status=status, content_type=label)]
        assert await ask(model) == [TextDelta("whole"), ReplyFinished()]
        service.answers = [saying(BODY + DONE, content_type=label)]
        assert await ask(model) == REPLY


@pytest.mark.parametrize(
    "heartbeat", [b"data:\n\n", b"data: \n\n", b"data\n\n", b": ping\n\n", b"data: ping\n\n"]
)
async def test_heartbeats_do_not_end_the_reply(heartbeat: bytes) -> None:
    async with talking() as (service, model):
        service.answers = [saying(heartbeat, FIRST, heartbeat, BODY[len(FIRST) :], DONE)]
        assert await ask(model) == REPLY


async def test_a_body_that_ends_without_a_closing_word_is_a_whole_reply() -> None:
    usage = json.dumps(EVENTS[3]).encode()
    async with talking() as (service, model):
        service.answers = [saying(FIRST, b"data: " + usage + b"\n\n")]
        assert await ask(model) == [TextDelta("你"), ReplyFinished("stop", 3, 2, USAGE)]


@pytest.mark.parametrize("end", ["held", "broken"])
async def test_the_reply_is_whole_once_a_finish_reason_came(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voicechat.providers.openai_chat.CLOSING_S", 0.05)
    events = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in EVENTS[:3])
    async with talking() as (service, model):
        service.answers = [saying(events, pause_s=60) if end == "held" else cut_off(events)]
        assert await ask(model) == [TextDelta("你"), TextDelta("好"), ReplyFinished()]


async def test_parameters_that_we_do_not_know_reach_the_server() -> None:
    options = {
        "reasoning_effort": "low",
        "top_k": 5,
        "logit_bias": {"1": 2},
        "user": "u",
        "stream": False,
        "model": "x",
    }
    async with talking() as (service, model):
        await ask(model, ChatRequest(messages=ASKED.messages, options=options))
        body = service.asked[0].body
        assert {name: body[name] for name in options} == options | {"stream": True, "model": "m"}


async def test_the_server_is_told_in_its_own_form_not_to_think() -> None:
    async with talking() as (service, _):
        model = open_chat_model(
            model="m", base_url=service.base_url, thinking="chat_template_kwargs"
        )
        await ask(
            model, ChatRequest(messages=ASKED.messages, options={"thinking": {"type": "disabled"}})
        )
        assert service.asked[0].body["chat_template_kwargs"] == {"enable_thinking": False}
        assert "thinking" not in service.asked[0].body
        await model.aclose()


async def test_a_conversation_that_is_too_long_is_told_by_its_code() -> None:
    async with talking() as (service, model):
        body = (
            b'{"object": "error", "message": "This model\'s maximum context length is 8 tokens.", '
            b'"code": 400}'
        )
        service.answers = [saying(body, status=400, content_type="application/json")]
        refused = await failure(model)
        assert isinstance(refused, RequestRefusedError)
        assert refused.code == CONTEXT_TOO_LONG
        assert "8 tokens" not in str(refused)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (500, "the request exceeds the available context size"),
        (500, "input length exceeds the context length"),
        (400, "Your request exceeded model token limit: 8192"),
        (400, "Total tokens of image and text exceed max message tokens"),
        (413, "Request too large for model `m` on tokens per minute (TPM)"),
        (422, "`inputs` tokens + `max_new_tokens` must be <= 4096"),
        (400, "Prompt 超长"),
        (400, "输入内容超出模型最大长度限制"),
    ],
)
async def test_servers_say_in_many_ways_that_it_is_too_long(status: int, message: str) -> None:
    async with talking() as (service, model):
        body = json.dumps({"error": {"message": message, "code": status}}).encode()
        service.answers = [saying(body, status=status, content_type="application/json")]
        refused = await failure(model)
        assert isinstance(refused, RequestRefusedError)
        assert refused.code == CONTEXT_TOO_LONG


async def test_a_connection_cut_in_the_middle_can_be_tried_again() -> None:
    async with talking() as (service, model):
        service.answers = [cut_off(FIRST)]
        reply = model.reply(ASKED)
        assert await anext(reply) == TextDelta("你")
        with pytest.raises(ProviderError) as caught:
            await anext(reply)
        assert caught.value.kind is FailureKind.CONNECTIVITY
        assert len(service.asked) == 1  # not by this provider: what was said would be said again


async def test_a_server_that_falls_silent_is_a_timeout() -> None:
    async with talking() as (service, _):
        service.answers = [saying(FIRST, pause_s=60)]
        model = open_chat_model(model="m", base_url=service.base_url, read_timeout_ms=100)
        assert (await failure(model)).kind is FailureKind.TIMEOUT
        await model.aclose()


@pytest.mark.parametrize("how", ["closed", "cancelled"])
async def test_cancelling_closes_the_connection_at_once(how: str) -> None:
    async with talking() as (service, model):
        endless = Endless(FIRST)
        service.answers = [endless]
        if how == "closed":
            reply = model.reply(ASKED)
            await anext(reply)
            await reply.aclose()
        else:
            begun = asyncio.Event()

            async def listen() -> None:
                async for _ in model.reply(ASKED):
                    begun.set()

            task = asyncio.get_running_loop().create_task(listen())
            await begun.wait()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await endless.gone.wait()


async def test_messages_of_any_kind_of_mapping_are_sent() -> None:
    async with talking() as (service, model):
        part = MappingProxyType({"type": "text", "text": "x"})
        await ask(
            model, ChatRequest(messages=(MappingProxyType({"role": "user", "content": (part,)}),))
        )
        assert service.asked[0].body["messages"] == [
            {"role": "user", "content": [{"type": "text", "text": "x"}]}
        ]


async def test_tools_go_out_as_they_are_and_calls_come_back() -> None:
    call = {
        "index": 0,
        "id": "call_1",
        "type": "function",
        "function": {"name": "clock", "arguments": "{}"},
    }
    events = (
        {"choices": [{"delta": {"tool_calls": [call]}}]},
        {"choices": [{"finish_reason": "tool_calls"}]},
    )
    history = (
        {"role": "user", "content": "What time is it?"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "call_0", "type": "function"}]},
        {"role": "tool", "tool_call_id": "call_0", "content": "noon"},
    )
    tools = [{"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}]
    async with talking() as (service, model):
        service.answers = [
            saying(*(f"data: {json.dumps(event)}\n\n".encode() for event in events), DONE)
        ]
        request = ChatRequest(messages=history, options={"tools": tools, "tool_choice": "auto"})
        assert await ask(model, request) == [
            ToolCall(0, "call_1", "clock", "{}"),
            ReplyFinished("tool_calls"),
        ]
        body = service.asked[0].body
        assert (body["messages"], body["tools"], body["tool_choice"]) == ([*history], tools, "auto")


async def test_what_is_no_json_is_rejected_without_asking() -> None:
    async with talking() as (service, model):
        for content in ("\ud800", object()):
            rejected = await failure(
                model, ChatRequest(messages=({"role": "user", "content": content},))
            )
            assert rejected.kind is FailureKind.REJECTED
        assert service.asked == []


async def test_usage_need_not_be_asked_for() -> None:
    async with talking() as (service, _):
        model = open_chat_model(model="m", base_url=service.base_url, include_usage=False)
        await ask(model)
        assert "stream_options" not in service.asked[0].body
        await model.aclose()


async def test_a_reply_may_begin_within_a_thought() -> None:
    chunks = [
        {"choices": [{"delta": {"content": text}}]} for text in ("hm, ", "well</thi", "nk>\n\nYes")
    ]
    async with talking() as (service, _):
        service.answers = [
            saying(*(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks), DONE)
        ]
        model = open_chat_model(model="m", base_url=service.base_url, starts_thinking=True)
        assert await ask(model) == [
            ThoughtDelta(),
            ThoughtDelta(),
            TextDelta("Yes"),
            ReplyFinished(),
        ]
        await model.aclose()


async def test_a_closed_model_says_so() -> None:
    async with talking() as (_, model):
        await model.aclose()
        assert (await failure(model)).kind is FailureKind.CONNECTIVITY


async def test_a_long_request_is_written_in_pieces_while_others_run() -> None:
    long = '"\n汉😀' * PIECE_CHARACTERS
    body = {
        "messages": [
            {"role": "user", "content": long},
            {"role": "user", "content": [{"type": "text", "text": long}], "name": None},
            {},
            {"role": "assistant", "content": None, "tool_calls": []},
        ],
        "temperature": 1.5,
        "stop": ("a",),
    }
    passes = 0

    async def others() -> None:
        nonlocal passes
        while True:
            passes += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(others())
        written = await _written(body)
        running.cancel()
    assert written == orjson.dumps(body | {"stop": ["a"]})
    assert passes >= len(written) // (2 * PASS_BYTES)


async def test_a_character_that_json_cannot_hold_is_refused_wherever_it_stands() -> None:
    text = "a" * (PIECE_CHARACTERS + 1) + "\ud83d"
    with pytest.raises(orjson.JSONEncodeError):
        await _written({"messages": [{"role": "user", "content": text}]})
